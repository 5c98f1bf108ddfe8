"""What the programs tell: drops, traces, connections, verdicts; read once, given to whoever asks.

    ring buffer ──hub (one thread)──▶ filter ──bounded queue──▶ subscriber ──▶ aggregate ──▶ people
                                                                         └──▶ pcap

The map:

    words.py        the numbers of bpf/include/types.h as words, sentences and remedies
    model.py        one event
    decode.py       records of the ring buffer as events, many at once
    filters.py      which events somebody wants; a test of an event is made once, then runs a lot
    hub.py          one reader of the ring buffer, any number of subscribers
    expired.py      connections that fell silent, which no packet tells
    aggregate.py    what is alike becomes one line with a count, so that a flood stays readable
    pcap.py         heads of packets as a pcapng file, each with why it was told of
    testing.py      fakes, shipped
"""
