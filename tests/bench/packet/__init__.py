"""Packets for benches, made by programs of their own.

build       compiles them
plan        what each packet of a run looks like, and which flow it belongs to
runs        a program run on fresh packets, net of what that costs
frames      live frames sent out by a device, counted where they arrive
world       two pods, a node, the outside; their maps filled as the daemon fills them
transfers   iperf3 and requests with responses between namespaces
"""
