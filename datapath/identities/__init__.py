"""Who has which address: what the registry tells of the cluster, brought into the maps of the programs.

model       the cluster as this node knows it, and what changed since the last time
"""
