"""Next hops: the kernel resolves them and keeps them fresh, so that programs find a link-layer address at once.

plan.py         which neighbours matter, and what is news about them: pure
messages.py     netlink requests
kernel.py       the kernel brought in line
"""
