"""Devices that lead out of the node.

observe.py      every route and address of the kernel, whoever set it, as facts
select.py       which devices are external, and by which address they speak: a pure function
kernel.py       the same on the kernel
vxlan.py        the overlay device that carries packets between nodes
"""
