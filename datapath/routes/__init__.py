"""The node's side of the cloud interfaces (plan.py says what the kernel should hold, kernel.py brings it there by the
requests of messages.py), and routes to the pods of other nodes (nodes.py)."""
