"""A fake of ports.DatapathView: a node with two pods, in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from datapath.conntrack.flows import ordered
from datapath.errors import DatapathError, UnknownPod
from datapath.events.filters import Filter, compile_filter
from datapath.events.hub import EventHub, Subscription
from datapath.events.testing import FakeNames, FakeRecords
from datapath.view.model import (
    AddressFacts,
    Attachment,
    Collected,
    DeniedRange,
    DeviceFacts,
    End,
    EndpointFacts,
    EventTotals,
    Feature,
    FlowFacts,
    HookCount,
    MapFacts,
    PolicyFacts,
    Prefilter,
    ProgramFacts,
    Selection,
    Status,
    Step,
    Traced,
    TranslationFacts,
    Way,
)
from datapath.view.select import select

E = TypeVar("E", FlowFacts, TranslationFacts)

WEB = End("10.0.1.5", 40000, "shop/web", 300)
DB = End("10.0.1.6", 5432, "shop/db", 301)
WORLD = End("198.51.100.7", 443, "", 2)


class FakeDatapath:
    """Implements ports.DatapathView. What it answers are plain attributes, to be changed by a test; events are those
    that are `put` into `records`. `fail_next`: raised by the next question."""

    def __init__(self) -> None:
        self.fail_next: DatapathError | None = None
        self.records = FakeRecords()
        self.hub = EventHub(self.records, gather_s=0.001)
        self.names = FakeNames(
            {"10.0.1.5": "shop/web", "10.0.1.6": "shop/db"},
            {7: ("plmweb", "shop/web"), 8: ("plmdb", "shop/db"), 2: ("ens5", "")},
        )
        attached = [Attachment("from-pod", "plmweb", "tcx"), Attachment("from-pod", "plmdb", "tcx")]
        self.answer_status = Status(
            mode="ebpf",
            kernel="6.12.0",
            routing="native",
            masquerade4=True,
            generation=12,
            endpoints=2,
            devices=["ens5"],
            features=[Feature("tcx", True), Feature("redirect-peer", False, "the kernel is older than 5.10")],
            programs=[ProgramFacts("from_pod", "sched_cls", 4321, attached)],
            collected=Collected(1_700_000_000.0, 30.0, 0.012, 2, 0),
            events=EventTotals(read=100, lost=1, suppressed=20),
        )
        self.answer_maps: Sequence[MapFacts] = [
            MapFacts("flows", "lru_hash", 98304, 131072, 40 << 20),
            MapFacts("events", "ringbuf", None, 4 << 20, 4 << 20),
        ]
        self.answer_endpoints: Sequence[EndpointFacts] = [
            EndpointFacts(
                1,
                "shop/web",
                ["10.0.1.5"],
                7,
                "plmweb",
                "0e:58:0a:00:01:05",
                300,
                ["egress-policy"],
                9001,
                1,
                5,
                500,
                4,
                800,
            ),
            EndpointFacts(2, "shop/db", ["10.0.1.6"], 8, "plmdb", "0e:58:0a:00:01:06", 301),
        ]
        self.answer_flows: list[FlowFacts] = [
            FlowFacts(
                "tcp", WEB, DB, "open", 60.0, 21_600.0, Way(5, 500, "pod", "plmdb"), Way(4, 800, "pod", "plmweb")
            ),
            FlowFacts(
                "tcp",
                End("10.0.1.5", 40001, "shop/web", 300),
                WORLD,
                "opening",
                1.0,
                59.0,
                Way(1, 74, "device", "ens5"),
                Way(),
                End("10.0.0.4", 33000),
            ),
        ]
        self.answer_translations: list[TranslationFacts] = [
            TranslationFacts("tcp", End("10.0.1.5", 40001, "shop/web"), WORLD, End("10.0.0.4", 33000), 1.0, 59.0)
        ]
        self.answer_counts: Sequence[HookCount] = [
            HookCount(0, 0, 1000, 90_000),
            HookCount(0, 6, 7, 518),
            HookCount(2, 17, 1, 98),
        ]
        self.answer_addresses: Sequence[AddressFacts] = [
            AddressFacts("10.0.1.5", "pod", 300, "shop/web", flags=["egress-policy"], device="plmweb"),
            AddressFacts("10.0.2.9", "remote-pod", 302, "shop/cache", "10.0.0.5"),
            AddressFacts("10.0.0.0/8", "range", 2, flags=["cluster"]),
        ]
        self.answer_policies: Sequence[PolicyFacts] = [
            PolicyFacts("shop/web", 1, "egress", 301, "tcp", 5432, 5432, "allow", 7, 3),
            PolicyFacts("shop/web", 1, "egress", 0, "", 0, 65535, "deny", 8, 7),
        ]
        self.answer_devices: Sequence[DeviceFacts] = [
            DeviceFacts(
                "ens5",
                2,
                "external",
                "02:00:00:00:00:01",
                9001,
                "10.0.0.4",
                attachments=[Attachment("from-device", "ens5", "tcx")],
            ),
        ]
        self.answer_traced = Traced(
            WEB,
            DB,
            "tcp",
            [
                Step("source", "source 10.0.1.5 is pod shop/web (identity 300)"),
                Step("policy", "egress policy: allowed by rule 7"),
            ],
            "forwarded",
            "delivered to pod shop/db by plmdb",
        )
        self.ranges: set[str] = set()

    def status(self) -> Status:
        self._fail()
        return self.answer_status

    def maps(self) -> Sequence[MapFacts]:
        self._fail()
        return self.answer_maps

    def endpoints(self) -> Sequence[EndpointFacts]:
        self._fail()
        return self.answer_endpoints

    def flows(
        self, wanted: Selection, *, states: Collection[str] = (), order: str = "none", limit: int = 0
    ) -> Iterator[FlowFacts]:
        self._fail()
        found = (flow for flow in _selected(self.answer_flows, wanted) if not states or flow.state in states)
        return iter(ordered(found, order, limit))

    def flush_flows(self, wanted: Selection) -> int:
        self._fail()
        gone = list(_selected(self.answer_flows, wanted))
        self.answer_flows = [flow for flow in self.answer_flows if flow not in gone]
        return len(gone)

    def translations(self, wanted: Selection) -> Iterator[TranslationFacts]:
        self._fail()
        return _selected(self.answer_translations, wanted)

    def counts(self) -> Sequence[HookCount]:
        self._fail()
        return self.answer_counts

    def addresses(self, address: str = "") -> Sequence[AddressFacts]:
        self._fail()
        return [one for one in self.answer_addresses if address in ("", one.address)]

    def policies(self, pod: str = "") -> Sequence[PolicyFacts]:
        self._fail()
        self._known(pod)
        return [one for one in self.answer_policies if pod in ("", one.pod)]

    def devices(self) -> Sequence[DeviceFacts]:
        self._fail()
        return self.answer_devices

    def trace(self, pod: str, destination: str, port: int, protocol: str) -> Traced:
        self._fail()
        self._known(pod)
        return self.answer_traced

    def subscribe(self, wanted: Filter, notify: Callable[[], None]) -> Subscription:
        self._fail()
        return self.hub.subscribe(compile_filter(wanted, self.names), notify)

    def prefilter(self) -> Prefilter:
        self._fail()
        return Prefilter(True, [DeniedRange(one, number) for number, one in enumerate(sorted(self.ranges), 1)])

    def update_prefilter(
        self, add: Collection[str], delete: Collection[str], *, force: bool = False
    ) -> tuple[int, int]:
        self._fail()
        added, deleted = len(set(add) - self.ranges), len(set(delete) & self.ranges)
        self.ranges = self.ranges - set(delete) | set(add)
        return added, deleted

    def _known(self, pod: str) -> None:
        if pod and pod not in {one.pod for one in self.answer_endpoints}:
            raise UnknownPod(
                f"no pod {pod} on this node", field="pod", remedy="`plimsoll pods list` tells on which node it is"
            )

    def _fail(self) -> None:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error


def _selected(entries: Collection[E], wanted: Selection) -> Iterator[E]:
    test = select(wanted)
    return (entry for entry in entries if test(entry))
