"""Pods' interfaces: messages.py says what to ask of the kernel, wiring.py asks it."""
