"""IPAM on the wire.

The map:

    v1/              ipam.proto and its stubs
    convert          messages <-> model, for nodes and their pools
    node_pools       which named pools a node has: metadata of its stream
    convert_work     messages <-> model, for intents and what workers learn from the cloud
"""
