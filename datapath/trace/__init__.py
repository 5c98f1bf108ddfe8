"""What would become of a packet: the programs run on one, without a network, on the maps that they really use.

The map:

    packet.py     the packet: Ethernet, IP, and the beginning of a conversation
    steps.py      what the programs told on the way, as sentences and a verdict
    dryrun.py     the copy of the program that tells every step and changes nothing, and running it
"""
