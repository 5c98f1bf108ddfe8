"""What all fake clouds share: HTTP servers that unmodified SDKs talk to, and that enforce the cloud's rules.

server.py, gate.py      HTTP: one cloud behind throttling, latency, faults, and the count of calls
admin.py                HTTP: the admin endpoint at /_admin, the same for every cloud
cloud.py, history.py    the state: numbers, revisions, what happens later; what a reader sees while it lags behind
space.py                addresses and prefixes of one subnet
faults.py               latency, errors, throttling and lags that tests set at run time
paging.py, tokens.py    pages of a listing, client tokens
errors.py               the error that a call answers with
seed.py                 what the networks to start with have in common
launch.py, testing.py   runs one until it is told to stop; in a thread of a test
"""
