"""An EC2 that runs on this machine: an HTTP server that unmodified SDKs talk to, and that enforces the cloud's rules.

__main__.py, command.py, launch.py   the ways in: module, `plimsoll lab fake-ec2`, and what both start
app.py, gate.py         HTTP: the EC2 query protocol at /; faults and throttling in front of it
admin.py, state.py      HTTP: the admin endpoint at /_admin, and the state that it tells
    metadata.py             HTTP: instance metadata (IMDSv2) at /latest
    protocol/               requests parsed and answers rendered from botocore's own service model
actions/                what each call does, one file per kind of resource
cloud.py                the state: records that are replaced, never changed, and the revisions of it
records.py              what a cloud remembers of a VPC, subnet, interface, instance
space.py                addresses and prefixes of one subnet
history.py              what a reader may see while the cloud is eventually consistent
limits.py, capacity.py  what an instance type holds (instance_types.json has the facts), checked before it is taken
holding.py              addresses that a call has taken, given back if it fails
faults.py               latency, errors, throttling and lags that tests set at run time
filters.py, pages.py, tokens.py   filters, pagination, client tokens
seed.py, testing.py     the network a cloud starts with; a server in a thread of a test
"""
