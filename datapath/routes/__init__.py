"""Routes, tables and rules of the node.

plan.py         what the kernel should hold for the cloud interfaces: a pure function
kernel.py       brings it there
nodes.py        routes to the pods of other nodes
segments.py     what is on which link
messages.py     netlink requests
"""
