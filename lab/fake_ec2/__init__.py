"""An EC2 that runs on this machine, on what all fake clouds share (lab.fake_cloud).

__main__.py, command.py, launch.py   the ways in: module, `plimsoll lab fake-ec2`, and what both start
app.py, state.py        HTTP: the EC2 query protocol at /; the state that the admin endpoint tells
    metadata.py             HTTP: instance metadata (IMDSv2) at /latest
    protocol/               requests parsed and answers rendered from botocore's own service model
actions/                what each call does, one file per kind of resource
cloud.py, errors.py     the state: records that are replaced, never changed; what EC2 says of what it refuses
records.py              what a cloud remembers of a VPC, subnet, interface, instance
limits.py, capacity.py  what an instance type holds (instance_types.json has the facts), checked before it is taken
holding.py              addresses that a call has taken, given back if it fails
filters.py, pages.py    filters, pagination
seed.py, testing.py     the network a cloud starts with; a server in a thread of a test
"""
