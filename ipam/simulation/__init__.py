"""A cloud account in simulated time: what a workload costs under which settings, before anybody pays for it.

The map:

    model.py      what is simulated: nodes, pods, subnets, settings, a cloud's rules
    clouds.py     rules of AWS, Azure and Alibaba: types, calls, seconds, throttles
    fields.py     tables of a TOML file, read with errors that name the field and a remedy
    workload.py   a described workload out of TOML
    recorded.py   a recorded one out of CSV or JSON lines
    variants.py   settings to compare, out of TOML
    examples.py   workloads and settings that come with it
    streams.py    pods one after the other, the same for every setting
    agenda.py     simulated time
    population.py where nodes live, and of which group recorded ones are
    space.py      the subnets' addresses
    nodes.py      one node: addresses, pods that have them, pods in line
    account.py    the line of calls: workers, budget, the cloud's throttle
    cloud.py      what calls do
    engine.py     the loop over all events
    tally.py      what is measured
    report.py     results as rows for people and programs

How many addresses a node should have, when that is urgent and which calls bring them is decided by the service's own
modules: wishes.py, watermarks.py, targets.py, forecast.py and plan.py. Here are the cloud and time.
"""
