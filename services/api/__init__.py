"""What goes over the wire: one folder a domain, v1/ holds the proto and its committed stubs (`make proto`).

The map:

    registry/    nodes and endpoints
    ipam/        pools, intents, and what workers exchange with the service
    node/        what a node daemon tells its administrators
    watch/       the header of every watch stream
"""
