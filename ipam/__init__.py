"""IP address management straight from a cloud's network: the domain, without transport.

The map:

    errors.py       what can go wrong, one tree
    config.py       what an operator may set
    model.py        frozen facts: instances, interfaces, pools, intents, outcomes
    ports.py        what the use cases consume: cloud, budget, journal, store, queue, clock
    tags.py         tags on everything that is created

    pure            watermarks.py how many addresses, and when; targets.py warm units as marks; forecast.py marks that
                    follow demand, by a rehearsal.py of each; plan.py which calls bring them; selection.py where new
                    interfaces go; overrides.py rules for nodes by labels; drift.py how live interfaces differ from what
                    they should be; degradation.py what is left out at which level; capacity.py when a subnet runs out,
                    obtainable.py what a node could still get; cluster_pool.py ranges for nodes without a
                    cloud; validation.py what a node may say of itself
    the service     service.py the use cases, of: fleet.py what is held in memory, pools.py one pool of it, siblings.py
                    several of one node, retired.py those it has no more; review.py what a pool needs now, wishes.py
                    the marks in force, drifted.py whether its interfaces need a repair; claims.py the workers' side;
                    release.py the handshake, whole.py which interface can go in one piece, reclaim.py what others can
                    spare (asked.py its books); levels.py how much is done at all; resync.py listings and leaks;
                    owners.py whose each address is; durable.py writing it all down; explain.py, views.py what people
                    are told
    the worker      executor.py performs an intent; allocation.py one attempt at more addresses; dismantle.py one at an
                    interface less; repair.py one at setting live ones right; calls.py every call within budget and
                    lease
    the node        local.py leases addresses, of: holdings.py the books, journal.py what survives a crash;
                    ranges.py addresses of the node's own ranges, without a cloud
    store/          the central tables; migrations/ their versions
    providers/      one module a cloud
    simulation/     an account in simulated time: settings tried on a workload
    testing/        fakes of the ports, shipped
"""
