"""IP address management straight from a cloud's network: the domain, without transport.

The map:

    errors.py       what can go wrong, one tree
    config.py       what an operator may set
    model.py        frozen facts: instances, interfaces, pools, intents, outcomes
    watermarks.py   needed(), excess(), due(): how many addresses, as pure functions
    plan.py         which cloud calls bring them, as a pure function
    ports.py        what the use cases consume: cloud, budget, journal, store, clock
    service.py      the central side: pools, intents, the release handshake, resync, explain
    executor.py     the worker's side: performs one intent against a cloud, step by step
    local.py        the node's side: leases, cooldown, fences, journalled before they are answered
    store.py        the central tables and the node's journal
    providers/      one module a cloud (aws)
    testing.py      fakes of the ports, shipped
"""
