"""One module a command group, each with an `app`.

The map:

    status.py       plimsoll status
    nodes.py        plimsoll nodes list|show|delete
    pods.py         plimsoll pods list
    identities.py   plimsoll identities list
    ipam.py         plimsoll ipam pool list|show, status, resync, intents, explain
    ipam_simulate.py   plimsoll ipam simulate
    queue.py        plimsoll queue dead-letters list|show|replay
    datapath.py     plimsoll datapath status|maps|endpoints|drops|addresses|devices|trace
    datapath_tables.py   its groups ct, nat, policy and prefilter
    monitor.py      plimsoll monitor
    node.py         plimsoll node cleanup
    pki.py          plimsoll pki init|issue|show|renew
    config.py       plimsoll config check|fields
    completion.py   plimsoll completion bash|zsh|fish
    version.py      plimsoll version
"""
