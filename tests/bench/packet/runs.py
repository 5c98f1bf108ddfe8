"""How long a program takes for a packet: test runs on fresh packets, net of what making them fresh costs."""

from __future__ import annotations

import statistics
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from datapath.loader import objects
from datapath.loader.programs import SkbContext
from tests.bench.packet import build
from tests.bench.packet.plan import Plan

_KEY: Final = struct.pack("=I", 0)
_STATE: Final = struct.Struct("=8QII")
PASS, DROP, REDIRECT = 0, 2, 7  # what programs return to tc


@dataclass(frozen=True, slots=True)
class Timed:
    """:ivar net_ns: a packet, median. :ivar codes: how often the program returned which verdict."""

    net_ns: float
    wrapper_ns: float
    codes: dict[int, int]

    def only(self, code: int) -> float:
        """The time, provided every packet ended as `code`: else the program did something else than was asked."""
        if set(self.codes) != {code}:
            raise RuntimeError(f"verdicts {self.codes}, not only {code}: the maps are not as this case needs them")
        return self.net_ns


class Runs:
    """The wrapper, loaded. Call within the network namespace whose devices the programs are to see."""

    def __init__(self) -> None:
        self._loaded = objects.load(build.bpf_object("wrapper"), pins=None, rodata={})
        self._wrapper, self._empty = self._loaded.programs["wrapper"], self._loaded.programs["empty"]

    def __enter__(self) -> Runs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loaded.close()

    def run(
        self, program_fd: int, plan: Plan, ifindex: int, packets: int, first_flow: int = 0
    ) -> tuple[float, dict[int, int]]:
        """Gross nanoseconds a packet, and the verdicts. Nothing else may run the wrapper meanwhile."""
        maps = self._loaded.maps
        maps["target"].update(_KEY, struct.pack("=I", program_fd))
        maps["plan"].update(_KEY, plan.pack())
        maps["state"].update(_KEY, _STATE.pack(*[0] * 8, first_flow, 0))
        context = SkbContext(ifindex=ifindex, ingress_ifindex=ifindex).pack()
        took = self._wrapper.test_run(plan.packet(), context=context, repeat=packets)
        counts = _STATE.unpack(maps["state"].lookup(_KEY) or b"")[:8]
        # The kernel runs a program once more than asked on some versions, never less.
        return took.duration_ns, {code: count for code, count in enumerate(counts) if count}

    def time(self, program_fd: int, plan: Plan, ifindex: int, *, packets: int = 400_000, rounds: int = 7) -> Timed:
        """In turns with an empty program, so that a busy moment of the machine hits both."""
        ours: list[float] = []
        none: list[float] = []
        codes: dict[int, int] = {}
        flow = 0
        for _ in range(rounds):
            took, codes = self.run(program_fd, plan, ifindex, packets, flow)
            ours.append(took)
            none.append(self.run(self._empty.fd, plan, ifindex, packets, flow)[0])
            flow += packets
        return Timed(statistics.median(ours) - statistics.median(none), statistics.median(none), codes)
