"""Sources that are denied, dropped in XDP before the kernel makes anything of their packets.

The map:

    prefilter.py    the denied ranges: listed, added, deleted; the devices they are guarded at
    ranges.py       what may be denied: reading ranges, and keeping the node's own addresses out of them (pure)
    rules.py        ranges in the programs' maps, and what was counted for each
    layout.py       mirror of bpf/include/prefilter.h
"""
