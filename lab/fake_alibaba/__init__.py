"""An Alibaba Cloud (ECS and VPC) that runs on this machine, on what all fake clouds share (lab.fake_cloud).

__main__.py, command.py, launch.py   the ways in: module, command, and what both start
app.py, parameters.py   HTTP: the RPC protocol at /, its parameters unflattened
metadata.py             HTTP: instance metadata at /latest
state.py                the state that the admin endpoint tells
actions/                what each call does, one file per kind of resource
cloud.py, errors.py     the state: records that are replaced, never changed; what the cloud says of what it refuses
records.py              what a cloud remembers of a VPC, vSwitch, interface, instance
limits.py, capacity.py  what an instance type holds (instance_types.json has the facts), checked before it is taken
pages.py                NextToken and PageNumber
seed.py, testing.py     the network a cloud starts with; a server in a thread of a test
"""
