"""Getting eBPF programs into the kernel, and reaching what they share with us.

The map:

    objects.py      finds and loads an object file: constants, sizes, pinned maps
    maps.py         maps: single entries, batches, memory
    programs.py     loaded programs, and running them on a packet
    links.py        attaching: TCX, XDP, cgroups; replaced in place
    legacy.py       attaching by clsact where the kernel has no TCX
    ringbuf.py      reading events
    clock.py        the programs' clock
    pins.py         everything of ours in the kernel, listed and removed
    layouts.py      whether pinned maps still mean the same, and moving their entries
    migrations.py   the known ways from former layouts
    bpffs.py        where pins live
    btf.py          types of objects and maps
    verifier.py     the verifier's log, shortened
    libbpf.py       libbpf by ctypes
    syscalls.py     bpf(2) by ctypes
"""
