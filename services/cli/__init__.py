"""The `plimsoll` command: what people and scripts ask of running services.

The map:

    main.py         the root command and the table of its groups
    lazy.py         loads a group's module only when it is asked for, extensions included
    options.py      options that many commands share
    invocation.py   what this process was asked for: context file, JSON or not
    errors.py       what the command can end with, and its exit codes
    context.py      where the services are: finding and reading the context file
    connect.py      asking services: channels, pages, errors as exit codes
    views.py        messages of the services as plain data with stable keys; what --json prints
    complete.py     names for shell completion, asked of running services
    render.py       tables for people, JSON for programs
    overview.py     the state of every service at once
    endpoints.py    pods, as the registry or node daemons tell them
    datapath.py     asking a node daemon of its programs in the kernel
    datapath_views.py    what it answers, as plain data
    monitoring.py   events as they come: lines, JSON, packets
    pools.py        pools of nodes, from whichever IPAM service has them
    explain.py      why a node or pod has no address
    service_settings.py   what can be set for a service, and what is wrong with a file
    certificates.py what a certificate says, and its renewal
    commands/       one module a command group
"""
