"""What a node daemon tells its administrators, on the wire.

The map:

    v1/                 node.proto, datapath.proto and their stubs
    convert_datapath    messages of DatapathService <-> facts of the datapath
"""
