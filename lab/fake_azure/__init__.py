"""An Azure Resource Manager that runs on this machine, on what all fake clouds share (lab.fake_cloud).

__main__.py, command.py, launch.py   the ways in: module, `plimsoll lab fake-azure`, and what both start
app.py                  HTTP: paths, pages, ETags, long-running operations
writes.py               what a PUT does: checked first, ended later
machines.py             virtual machines come and go: single, of a flexible scale set, of a uniform one
cloud.py, records.py    the state: records that are replaced, never changed
render.py, state.py     records as ARM's JSON, and as the admin endpoint tells them
errors.py               what ARM says of what it refuses
testing.py              a server in a thread of a test; sizes.json has how many interfaces a size takes
"""
