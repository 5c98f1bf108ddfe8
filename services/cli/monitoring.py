"""Events of a node as they come: lines for people, a JSON object a line for programs, or packets in a file."""

from __future__ import annotations

import json as json_text
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import typer

from datapath.events.pcap import PcapWriter
from services.api.node.v1 import datapath_pb2 as wire
from services.cli.context import Context
from services.cli.datapath import datapath_of, streamed, the_node
from services.cli.datapath_views import event_view, line_of
from services.cli.errors import Refused, Usage
from services.cli.render import COLOURS, counted


class Monitored:
    """One run of the monitor. Iterate over its messages; it ends after `at_most` events, at Ctrl-C, or never.

    :ivar told: events that were handed out.
    :ivar lost: those that were lost on the way, here or in the ring.
    """

    def __init__(self, context: Context, node: str, request: wire.MonitorRequest, at_most: int) -> None:
        self.node = the_node(context, node).name
        self.told = 0
        self.lost = 0
        self._context = context
        self._request = request
        self._at_most = at_most

    def __iter__(self) -> Iterator[wire.MonitorResponse]:
        with datapath_of(self._context, self.node) as stub:
            for message in streamed(stub.Monitor(self._request)):
                if self._at_most and self.told + len(message.events) > self._at_most:
                    del message.events[self._at_most - self.told :]
                self.told += len(message.events)
                self.lost += message.lost + message.lost_in_ring
                yield message
                if self._at_most and self.told >= self._at_most:
                    return

    def summary(self, noun: str) -> str:
        lost = f", {self.lost} lost" if self.lost else ""
        return f"{self.node}: {counted(self.told, noun)}{lost}"


def lines_to(monitored: Monitored, json: bool) -> None:
    """A line an event to standard output. Standard error says when it begins, and what it came to."""
    with _ends_quietly():
        for number, message in enumerate(monitored):
            if not number:
                _say(f"{monitored.node}: listening; Ctrl-C ends it", json)
            for event in message.events:
                view = event_view(event)
                print(json_text.dumps(view) if json else _coloured(line_of(view), view["verdict"]))
            if message.lost or message.lost_in_ring:
                view = {"type": "lost", "events": message.lost, "in_ring": message.lost_in_ring}
                print(json_text.dumps(view) if json else _lost(message))
            sys.stdout.flush()
    _say(monitored.summary("line"), json)


def packets_to(path: str, monitored: Monitored, json: bool) -> None:
    """Heads of packets as pcapng, each with what was said of it as its comment; to standard output if path is "-"."""
    with _opened(path) as stream, _ends_quietly():
        writer = PcapWriter(stream)
        for number, message in enumerate(monitored):
            if not number:
                _say(f"{monitored.node}: writing to {path}; Ctrl-C ends it", json)
            for event in message.events:
                if event.packet:
                    view = event_view(event)
                    comment = f"{view['verdict']} {view['hook']} {view['reason']}".rstrip()
                    writer.write(event.time.ToNanoseconds(), event.device, event.packet, event.bytes, comment)
            stream.flush()
    done = {"file": path, "packets": writer.packets, "lost": monitored.lost}
    if path == "-":
        _say(monitored.summary("packet"), json)
    else:
        print(json_text.dumps(done) if json else f"{path}: {monitored.summary('packet')}")


@contextmanager
def _ends_quietly() -> Iterator[None]:
    """Ctrl-C is how one stops watching; a reader that closes the pipe has seen enough."""
    try:
        yield
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Else the interpreter complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        if sys.stdout.isatty():
            raise Usage(
                "packets are not for a terminal",
                field="pcap",
                remedy="pipe them: --pcap - | tcpdump -r -, or name a file",
            )
        yield sys.stdout.buffer
        return
    with _created(Path(path)) as stream:
        yield stream


def _created(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}", field="pcap", remedy="name a file that can be written") from error


def _say(text: str, json: bool) -> None:
    """Beside the events, and only to somebody who looks."""
    if not json and sys.stderr.isatty():
        print(text, file=sys.stderr)


def _lost(message: wire.MonitorResponse) -> str:
    why = [f"{message.lost} lost here, where reading is too slow"] if message.lost else []
    why += [f"{message.lost_in_ring} lost in the kernel's ring"] if message.lost_in_ring else []
    return f"... {', '.join(why)}: name fewer events with --pod, --type or --verdict"


def _coloured(line: str, verdict: str) -> str:
    if not sys.stdout.isatty():
        return line
    return line.replace(verdict, typer.style(verdict, fg=COLOURS.get(verdict)), 1)
