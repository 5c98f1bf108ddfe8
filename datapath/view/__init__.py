"""What an administrator is shown of the datapath, in facts that are ready to be told.

The map:

    model.py      status, maps, endpoints, connections, translations, drops, addresses, policies, devices, dry runs
    select.py     which connections somebody asked for
    kernel.py     the kernel's own answers: maps, programs and devices as they are now
    testing.py    a fake of ports.DatapathView, shipped
"""
