"""Who has which address: what the registry tells of the cluster, brought into the maps of the programs.

model       the cluster as this node knows it, and what changed since the last time
addresses   who has which address: the node, its pods, other nodes and theirs
numbers     small numbers for other nodes' addresses
cidrs       ranges, for all who want some
"""
