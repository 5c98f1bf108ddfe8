"""Connections in the kernel: `flows`, `nat` and `fragments`, which the programs fill and this keeps tidy.

sizing    how large the maps are, from the machine's memory
scan      thousands of entries at once: which have expired, and of what kind they are
gc        takes out what has expired, and what belonged to pods that are gone
translations   entries of `nat` that belong to a flow
evictions      how many entries full maps have pushed out
flows     connections for people: listed, filtered, flushed
"""
