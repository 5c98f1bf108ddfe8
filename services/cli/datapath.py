"""Asking a node daemon of its programs in the kernel: on its socket, on its machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from services.api.node.v1 import datapath_pb2 as wire
from services.api.node.v1.datapath_pb2_grpc import DatapathServiceStub
from services.cli.connect import DEADLINE_S, stub_of
from services.cli.context import Context, Service
from services.cli.errors import Refused, Unknown, Usage
from services.runtime.errors import from_rpc_error


def the_node(context: Context, node: str) -> Service:
    """The daemon to ask: the one of that name, or the only one of the context."""
    if not context.nodes or (node and node not in context.nodes):
        raise Unknown(
            f"{context.path} names no socket of {f'node {node}' if node else 'a node'}",
            remedy='run this on the node, and add a line to the table [nodes]: NAME = "unix:/run/plimsoll/node.sock"',
        )
    if node:
        return context.nodes[node]
    if len(context.nodes) > 1:
        raise Usage(
            f"{context.path} names several node daemons",
            field="node",
            remedy=f"choose one: --node {' or --node '.join(context.nodes)}",
        )
    (only,) = context.nodes.values()
    return only


@contextmanager
def datapath_of(context: Context, node: str) -> Iterator[DatapathServiceStub]:
    """A stub of the daemon's DatapathService. Errors of calls leave the block as CliError."""
    service = the_node(context, node)
    with stub_of(service, DatapathServiceStub) as stub:
        try:
            yield stub
        except grpc.RpcError as error:
            if from_rpc_error(error).code == grpc.StatusCode.UNIMPLEMENTED:
                raise Refused(
                    f"{service.name} has no programs in the kernel: it leaves routing to it, or is of an older release",
                    remedy="see docs/datapath.md for what switches them on, or upgrade the daemon",
                ) from error
            raise


def streamed(answers: Any) -> Iterator[Any]:
    """Messages of a stream, which is cancelled when the reader leaves."""
    try:
        yield from answers
    finally:
        answers.cancel()


def flow_filter(pods: list[str], addresses: list[str], ports: list[int], protocols: list[str]) -> wire.FlowFilter:
    return wire.FlowFilter(pods=pods, addresses=addresses, ports=ports, protocols=protocols)


def split_destination(text: str) -> tuple[str, int]:
    """Destination and port (0: none) of "10.0.1.5:443", "[fd00::5]:443", "shop/db:5432", or of one without port."""
    if text.startswith("["):
        host, closing, port = text[1:].partition("]")
        if not closing or (port and not port.startswith(":")):
            raise _wrong(text)
        return host, _port(text, port[1:]) if port else 0
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, _port(text, port)
    return text, 0


def _port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _wrong(text)
    return int(port)


def _wrong(text: str) -> Usage:
    return Usage(
        f"{text!r} is no destination",
        field="destination",
        remedy="write ADDRESS, ADDRESS:PORT, [IPV6]:PORT, or namespace/name[:PORT]",
    )


__all__ = ["DEADLINE_S", "datapath_of", "flow_filter", "split_destination", "streamed", "the_node"]
