"""The node daemon: gives pods addresses and wires them, whether or not any central service is there.

The map:

    settings.py       what an operator may set
    wiring.py         builds the parts, in order
    cni.py            the socket that the CNI plugin asks; cni_request.py, cni_result.py: the specification's words
    pods.py           add, remove, check: lease and kernel together, one pod at a time
    network.py        the pool's interfaces in the kernel, level-triggered
    clients.py        streams to IPAM and registry: pool in; usage, endpoints and heartbeats out
    cluster_ranges.py ranges for pods that the registry gives to this node
    cluster.py        all nodes and pods as the registry tells them, and what is new each time
    handlers.py       NodeService on the local socket; explain.py answers "why not"; datapath_handlers.py:
                      DatapathService; datapath.py keeps the datapath going
    metadata.py       what the cloud says of a pod's interface, as labels
    metrics.py        what Prometheus is told
    cni/              the plugin itself, in C
"""
