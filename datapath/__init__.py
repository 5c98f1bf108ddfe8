"""What the kernel must hold so that packets of pods find their way: the domain, without transport.

The map:

    errors.py       what can go wrong, one tree
    model.py        frozen facts: endpoints, cloud links, routes, rules; and how ours are told from others'
    ports.py        what the node daemon consumes
    layout.py       what programs and daemon share: bpf/include/types.h in Python
    record.py       C structures as dataclasses
    loader/         programs into the kernel, maps, links, events out of it
    netlink.py      many requests in one system call, each with its own answer
    observe.py      what the kernel holds, as facts
    sysctls.py      settings of the kernel's IP stack that pods need
    namespaces.py   visiting a pod's network namespace
    endpoints/      veth pairs, addresses and host routes of pods
    routes/         cloud interfaces, tables and rules, routes to other nodes' pods: plan.py is pure, kernel.py applies
    devices/        devices that lead out of the node, and the overlay device
    neighbours/     next hops that the kernel keeps resolved
    maps.py         what parts ask of a map; fake_maps.py has one of memory
    config.py       what an operator may set
    service.py      all of it together, as the node and the cluster want it
    programs.py     the node's programs: loaded, attached, replaced in place
    local_pods.py   this node's pods as the programs know them
    raises.py       when what the programs remember is dropped
    retire.py       plain routing instead: what is left of the programs taken away
    runtime.py      what changes while programs run: the generation, and which events they tell
    conntrack/      connections: sizes of their maps, what has expired taken out, lists
    identities/     who has which address
    masquerade/     ranges that pods' own addresses are good in, lists
    policy/         rules of pods as maps
    events/         what the programs tell: read, filtered, fanned out, added up
    prefilter/      denied sources, dropped in XDP
    acceleration/   local TCP from socket to socket
    trace/          what would become of a packet: the programs run on one, without a network
    view/           what an administrator is shown
    network_events.py   tells what may have changed
    cleanup.py      takes everything of ours out again
    testing.py      fakes of the ports, shipped
"""
