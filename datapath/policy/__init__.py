"""Policy of pods as maps of the kernel: who may speak with whom is decided elsewhere, in rules with identities.

model       rules of an endpoint, and what a packet is asked about
ranges      a range of ports as the fewest prefixes
compile     rules as entries of one LPM map
evaluate    the verdict as rules state it, and as the map's entries give it: for tests and `trace`
writer      endpoints' maps filled, put in place and taken away
"""
