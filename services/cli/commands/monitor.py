"""plimsoll monitor"""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.options import Addresses, ContextFile, Json, LocalNode, Pods, Ports, Protocols, group

app = group("What happens to packets, as it happens.")

HOOKS = "from-pod, to-pod, from-device, to-device, from-overlay, to-overlay or xdp; may be repeated."


@app.command()
def monitor(
    pod: Pods = None,
    address: Addresses = None,
    port: Ports = None,
    protocol: Protocols = None,
    verdict: Annotated[
        list[str] | None,
        typer.Option("--verdict", metavar="WORD", help="forwarded, dropped or audited; may be repeated."),
    ] = None,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="WORD", help="drop, trace, flow-new, flow-closed or verdict; may be repeated."),
    ] = None,
    hook: Annotated[list[str] | None, typer.Option("--hook", metavar="WORD", help=HOOKS)] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", min=0, help="End after so many lines; 0: never.")] = 0,
    interval: Annotated[
        float,
        typer.Option(
            "--interval", metavar="S", min=0, max=60, help="Seconds for which alike events are counted; 0: tell each."
        ),
    ] = 1.0,
    pcap: Annotated[
        str | None,
        typer.Option("--pcap", metavar="FILE", help="Write heads of packets there (pcapng) instead; -: to a pipe."),
    ] = None,
    node: LocalNode = "",
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """What happens to packets, as it happens: drops, connections, verdicts, and samples of what passes.

    Options of different names must all agree; values of one are alternatives. With --json: one object a line.
    """
    from services.api.node.v1 import datapath_pb2 as wire
    from services.cli import context as contexts
    from services.cli.monitoring import Monitored, lines_to, packets_to

    request = wire.MonitorRequest(
        filter=wire.EventFilter(
            pods=pod or [],
            addresses=address or [],
            ports=port or [],
            protocols=protocol or [],
            verdicts=verdict or [],
            types=type_ or [],
            hooks=hook or [],
        ),
        interval_s=0.0 if pcap else interval,
        packets=bool(pcap),
    )
    monitored = Monitored(contexts.current(context), node, request, count)
    if pcap:
        packets_to(pcap, monitored, json)
    else:
        lines_to(monitored, json)
