"""Local TCP without the stack: what one socket of this node sends is put straight where the other one reads.

The map:

    sockmap.py      switched on for a cgroup, off, asked how it does
    cookies.py      telling network namespaces apart
    layout.py       mirror of bpf/include/acceleration.h
"""
