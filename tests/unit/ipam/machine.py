"""Everything that can happen, in any order: no address in two places, none in use taken away, nothing leaked.

Nodes and service talk over two lines with delay: a node hears of its pool some time after it changed (only the newest
state, as the stream does), and what it says waits in a queue. Workers die before or after the effect of any call.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipam.config import IpamConfig
from ipam.errors import IpamError, StoreError, Unavailable
from ipam.model import AddressKey, NodeSpec, Operation, Watermarks
from ipam.tags import CLUSTER_TAG
from ipam.testing import IpamSite
from ipam.views import PoolView
from ipam.watermarks import excess, needed
from tests.unit.ipam.moody import MoodyCloud, SimNode

CONFIG = IpamConfig(
    account="1", region="r", release_delay_s=20.0, coalesce_s=10.0, resync_interval_s=60.0, collect_interval_s=60.0,
    leak_age_s=60.0, block_s=30.0, lease_s=30.0, retry_cap_s=30.0, sweep_interval_s=10.0,
)  # fmt: skip
FAILING = (*Operation, "read-instance")


class WorkerKilled(BaseException):
    pass


class IpamMachine(RuleBasedStateMachine):
    """
    :cvar type_: of the instances.
    :cvar wanted: what the nodes ask for beside their marks.
    :cvar places: subnets in which instances are launched, in turn.
    """

    config = CONFIG
    type_ = "m4.large"
    wanted: ClassVar[dict[str, Any]] = {}
    places: ClassVar[tuple[str, ...]] = ("subnet-a",)

    def __init__(self) -> None:
        super().__init__()
        self.cloud = MoodyCloud()
        self.site = IpamSite(self.config, self.cloud)
        self.nodes: dict[str, SimNode] = {}
        self._places = itertools.cycle(self.places)
        self._listen()
        self.kill_at: tuple[int, str] | None = None
        self.cloud.watch = self._watch
        self.drained: list[tuple[str, list[str]]] = []
        self.hidden: set[str] = set()

    def teardown(self) -> None:
        try:
            self.all_calms_down()
            self.no_address_in_use_has_left_its_node()
            self.no_address_in_two_places()
        finally:
            self.site.close()

    @initialize(
        marks=st.lists(st.sampled_from([(1, 0), (2, 0), (0, 0), (4, 0), (3, 5), (1, 10)]), min_size=2, max_size=3),
        protects=st.booleans(),
    )
    def nodes_start(self, marks: list[tuple[int, int]], protects: bool) -> None:
        self.cloud.capabilities = replace(self.cloud.capabilities, protects_on_create=protects)
        for number, (pre, least) in enumerate(marks):
            self._launch(NodeSpec(f"n{number}", "", watermarks=Watermarks(pre, least), **self.wanted))
            self._connect(self.nodes[f"n{number}"])

    def _launch(self, spec: NodeSpec) -> None:
        instance = self.cloud.launch(self.type_, subnet_id=next(self._places))
        self.nodes[spec.name] = SimNode(replace(spec, instance_id=instance.id), instance.vpc_id)

    # wiring

    def _listen(self) -> None:
        self.site.service.on_pool_change = self._tell
        self.site.service.on_leadership = self._leadership

    def _leadership(self, leads: bool) -> None:
        if not leads:
            self._cut_all()

    def _cut_all(self) -> None:
        for node in self.nodes.values():
            node.connected = False
            node.news = None
            node.says.clear()

    def _tell(self, name: str, interfaces: Any) -> None:
        node = self.nodes.get(name)
        if node is not None:
            node.news = {a: state for each in interfaces.values() for a, state in each.addresses.items()}
            node.homes |= {a: each.id for each in interfaces.values() for a in each.addresses}
            self._see_links(node)

    def _see_links(self, node: SimNode) -> None:
        mine = node.spec.instance_id
        node.links = {each.id for each in self.cloud.interfaces().values() if each.instance_id == mine}

    def _watch(self, operation: str, phase: str) -> None:
        if self.kill_at is not None and phase == self.kill_at[1] and not operation.startswith("read"):
            left, where = self.kill_at
            self.kill_at = (left - 1, where) if left else None
            if not left:
                raise WorkerKilled

    def _service(self, coroutine: Any) -> Any:
        """What fails at the service ends the node's connection or the worker's task, and is tried again later."""
        try:
            return self.site.run(coroutine)
        except IpamError:
            return None

    def _connect(self, node: SimNode) -> None:
        node.says.clear()
        usage = node.usage()
        session = self._service(self.site.service.announce(node.spec, usage))
        node.connected = session is not None
        node.session = session or 0
        node.news = None
        if node.connected:
            self._tell(node.spec.name, self.site.service.interfaces(node.spec.name))

    def _deliver(self, node: SimNode) -> None:
        if node.says:
            session, usage = node.says.popleft()
            self._service(self.site.service.report(node.spec.name, usage, session))

    def _work_once(self) -> bool:
        intent_id = self.site.queue.take()
        if intent_id is None:
            return False
        with contextlib.suppress(IpamError, WorkerKilled):
            self.site.executor.perform(intent_id, f"w{self.site.clock.monotonic()}")
        self.site.run(self.site.service.settle())
        return True

    NODE = st.integers(0, 2)

    def _node(self, number: int) -> SimNode:
        return list(self.nodes.values())[number % len(self.nodes)]

    # what can happen

    @rule(number=NODE, count=st.integers(1, 12))
    def pods_start(self, number: int, count: int) -> None:
        node = self._node(number)
        for _ in range(count if node.up else 0):
            node.start_pod()

    @rule(number=NODE, count=st.integers(1, 12), choice=st.integers(0, 9))
    def pods_stop(self, number: int, count: int, choice: int) -> None:
        node = self._node(number)
        for _ in range(count if node.up else 0):
            node.stop_pod(choice)

    @rule(number=NODE)
    def cooldown_ends(self, number: int) -> None:
        node = self._node(number)
        if node.up:
            node.cooling.clear()
            node.say()

    @rule(number=NODE)
    def node_hears(self, number: int) -> None:
        self._node(number).hear()

    @rule(number=NODE, count=st.integers(1, 3))
    def service_hears(self, number: int, count: int) -> None:
        for _ in range(count):
            self._deliver(self._node(number))

    @rule(number=NODE)
    def line_is_cut(self, number: int) -> None:
        """The service notices at once, or only when the node comes back."""
        node = self._node(number)
        node.connected = False
        node.news = None

    @rule(number=NODE)
    def service_notices_the_cut(self, number: int) -> None:
        node = self._node(number)
        if not node.connected:
            self._service(self.site.service.disconnected(node.spec.name, node.session))

    @rule(number=NODE)
    def node_restarts(self, number: int) -> None:
        """Leases, cooldowns and fences are in its journal; the pool comes from there, or anew."""
        node = self._node(number)
        node.connected = False
        node.news = None
        node.waiting = 0
        node.up = True

    @rule(number=NODE)
    def node_connects(self, number: int) -> None:
        node = self._node(number)
        if node.up:
            self._connect(node)

    @rule(count=st.integers(1, 4))
    def workers_work(self, count: int) -> None:
        for _ in range(count):
            if not self._work_once():
                break

    @rule(calls=st.integers(0, 5), phase=st.sampled_from(["before", "after"]))
    def worker_will_be_killed(self, calls: int, phase: str) -> None:
        self.kill_at = (calls, phase)

    @rule(operation=st.sampled_from(FAILING), after=st.booleans())
    def cloud_will_fail(self, operation: str, after: bool) -> None:
        self.cloud.fail(operation, Unavailable("connection cut", code="InternalError"), after_effect=after)

    @rule(seconds=st.sampled_from([5, 40]))
    def cloud_throttles(self, seconds: int) -> None:
        self.cloud.throttled_until = self.site.clock.monotonic() + seconds

    @rule(subnet=st.sampled_from(["subnet-a", "subnet-b"]), leave=st.integers(0, 4))
    def subnet_fills(self, subnet: str, leave: int) -> None:
        self.drained.append((subnet, self.cloud.drain(subnet, leave=leave)))

    @precondition(lambda self: self.drained)
    @rule()
    def subnet_has_room_again(self) -> None:
        self.cloud.refill(*self.drained.pop())

    @rule()
    def queue_is_lost(self) -> None:
        self.site.queue.lose()

    @rule(down=st.booleans())
    def queue_is_down(self, down: bool) -> None:
        self.site.queue.down = down

    @rule(after=st.booleans())
    def store_fails_once(self, after: bool) -> None:
        self.site.store.fail_after_effect = after
        self.site.store.fail = [StoreError("disk full")]

    @rule()
    def service_restarts(self) -> None:
        self._cut_all()
        with contextlib.suppress(StoreError):
            self.site.new_service()  # or a later tick starts it
        self._listen()

    @rule()
    def another_replica_leads_for_a_while(self) -> None:
        """And then it dies. Ours finds out with its next write, or when it renews its lead."""
        self.site.store._leads_until = 0.0
        self.site.run(self.site.store.lead("another", 10.0))

    @rule(number=NODE)
    def instance_is_not_seen(self, number: int) -> None:
        instance_id = self._node(number).spec.instance_id
        self.hidden.add(instance_id)
        self.cloud.hide(instance_id)

    @rule()
    def instances_are_seen_again(self) -> None:
        while self.hidden:
            self.cloud.show(self.hidden.pop())

    @rule(number=NODE)
    def instance_is_replaced(self, number: int) -> None:
        """Another machine with the same name: its pods, its journal and its connection are gone."""
        old = self._node(number)
        self.cloud.terminate(old.spec.instance_id)
        self._launch(old.spec)

    @rule(number=NODE)
    def node_loses_its_disk(self, number: int) -> None:
        old = self._node(number)
        self.nodes[old.spec.name] = SimNode(old.spec, old.vpc_id)

    @rule(number=NODE)
    def interface_without_pods_is_detached_by_hand(self, number: int) -> None:
        node = self._node(number)
        for each in self.cloud.interfaces().values():
            if (
                each.instance_id == node.spec.instance_id
                and each.device_index
                and not node.pods & {*each.all_addresses}
            ):
                calls = self.kill_at
                self.kill_at = None
                with contextlib.suppress(IpamError):
                    self.cloud.detach_interface(attachment_id=each.attachment_id, interface_id=each.id)
                self.kill_at = calls
                self._see_links(node)
                return

    @rule(seconds=st.sampled_from([5, 30]))
    def cloud_loses_sight_of_writes(self, seconds: int) -> None:
        self.cloud.reads_lag(seconds)

    @rule(number=NODE, other=NODE)
    def cloud_gives_an_address_twice(self, number: int, other: int) -> None:
        giver, taker = self._node(number).spec.instance_id, self._node(other).spec.instance_id
        interfaces = self.cloud.interfaces().values()
        owned = [(a, each) for each in interfaces if each.instance_id == giver for a in each.addresses]
        fresh = [(a, each.subnet_id) for a, each in owned if (each.vpc_id, a) not in self.cloud.doubled]
        if giver != taker and fresh:
            address, subnet_id = fresh[0]
            targets = [each.id for each in interfaces if (each.instance_id, each.subnet_id) == (taker, subnet_id)]
            if targets:
                self.cloud.give_twice(address, targets[0])

    @rule()
    def cloud_mends_its_books(self) -> None:
        nodes = self.nodes.values()
        self.cloud.mend({(node.vpc_id, a): node.spec.instance_id for node in nodes for a in node.pods})

    @rule(number=NODE, marks=st.sampled_from([(1, 0, 0), (0, 0, 0), (6, 2, 0), (2, 0, 5), (1, 12, 0)]))
    def operator_changes_marks(self, number: int, marks: tuple[int, int, int]) -> None:
        node = self._node(number)
        node.spec = replace(node.spec, watermarks=Watermarks(*marks))
        if node.up:
            self._connect(node)

    @rule(number=NODE, subnets=st.sampled_from([(), ("subnet-a",), ("subnet-b",)]))
    def operator_changes_subnets(self, number: int, subnets: tuple[str, ...]) -> None:
        node = self._node(number)
        node.spec = replace(node.spec, subnet_ids=subnets)
        if node.up:
            self._connect(node)

    @rule(groups=st.sampled_from([(), ("sg-1",), ("sg-none",)]), number=NODE)
    def operator_changes_groups(self, groups: tuple[str, ...], number: int) -> None:
        node = self._node(number)
        node.spec = replace(node.spec, security_group_ids=groups)
        if node.up:
            self._connect(node)

    @rule(seconds=st.sampled_from([1, 5, 15, 35, 70]))
    def time_passes(self, seconds: int) -> None:
        self.site.clock.advance(seconds)
        self._service(self.site.service.tick())

    @rule(seconds=st.sampled_from([-3600, -10, 10, 3600]))
    def wall_clock_jumps(self, seconds: int) -> None:
        self.site.clock.jump(seconds)

    @rule()
    def resync_is_asked_for(self) -> None:
        self._service(self.site.service.resync())

    # what must always hold

    @invariant()
    def no_address_in_use_has_left_its_node(self) -> None:
        cloud = {
            interface.instance_id: set() for interface in self.cloud.interfaces().values() if interface.instance_id
        }  # type: dict[str, set[str]]
        for interface in self.cloud.interfaces().values():
            if interface.instance_id:
                cloud[interface.instance_id] |= set(interface.all_addresses)
        for node in self.nodes.values():
            assert node.pods <= cloud[node.spec.instance_id], f"{node.spec.name}: {node.pods} beyond the cloud's"

    @invariant()
    def no_address_in_two_places(self) -> None:
        seen: dict[AddressKey, str] = {}
        for node in self.nodes.values():
            for key in node.leasable():
                assert key not in seen, f"{key} is on {seen[key]} and {node.spec.name}"
                seen[key] = node.spec.name

    @invariant()
    def one_open_intent_a_node(self) -> None:
        if self.site.service.leads:
            owed = [intent.node for intent in self.site.service.intents() if intent.node]
            assert len(owed) == len(set(owed))

    def settle_down(self, rounds: int) -> None:
        for _ in range(rounds):
            for node in self.nodes.values():
                if not node.connected:
                    self._connect(node)
                for _ in range(3):
                    node.hear()
                    while node.says:
                        self._deliver(node)
                    while node.waiting and node.free():
                        node.start_pod()
            while self._work_once():
                pass
            self.site.clock.advance(5)
            self._service(self.site.service.tick())

    @rule(rounds=st.integers(1, 8))
    def life_goes_on(self, rounds: int) -> None:
        """Everybody does what is due, with whatever faults are about."""
        self.settle_down(rounds)

    @rule(number=NODE, count=st.integers(1, 12))
    def pods_come_and_go(self, number: int, count: int) -> None:
        """Long enough for addresses to be brought, and then to be too many."""
        node = self._node(number)
        for _ in range(count):
            node.start_pod()
        self.settle_down(4)
        for choice in range(count):
            node.stop_pod(choice)
        self.cooldown_ends(number)
        self.settle_down(5)

    @rule()
    def all_calms_down(self) -> None:
        """Faults end and time passes: pools are between their marks and nothing is leaked."""
        self.kill_at = None
        self.cloud.faults.clear()
        self.cloud.throttled_until = 0.0
        self.site.queue.down = False
        self.site.store.fail.clear()
        while self.drained:
            self.cloud.refill(*self.drained.pop())
        self.instances_are_seen_again()
        self.cloud.lags_until = 0.0
        self.cloud_mends_its_books()
        for node in self.nodes.values():
            node.cooling.clear()
            if node.spec.security_group_ids == ("sg-none",):
                node.spec = replace(node.spec, security_group_ids=())
                self._connect(node)
            node.say()
        self.settle_down(160)
        self.pools_are_between_their_marks()
        self.nothing_is_leaked()

    def pools_are_between_their_marks(self) -> None:
        service = self.site.service
        for node in self.nodes.values():
            view = service.pool(node.spec.name)
            marks = view.marks
            room = view.capacity - view.attached
            if marks.max_allocate:
                room = min(room, max(marks.max_allocate - view.attached, 0))
            assert node.waiting == 0 or not room, f"pods wait: {service.explain(node.spec.name)}"
            missing = min(needed(view.attached, len(node.pods), marks), room)
            assert not missing, f"{missing} missing: {service.explain(node.spec.name)}"
            self.nothing_is_above_the_marks(node, view)
            assert set(node.pool) == set(self._cloud_addresses(node)), "the node sees what the cloud has"
            assert not node.fenced

    def nothing_is_above_the_marks(self, node: SimNode, view: PoolView) -> None:
        assert not excess(view.attached, len(node.pods), view.marks), self.site.service.explain(node.spec.name)

    def _cloud_addresses(self, node: SimNode) -> list[str]:
        return [a for each in self.cloud.instance(node.spec.instance_id).interfaces for a in each.all_addresses]

    def nothing_is_leaked(self) -> None:
        for interface in self.cloud.interfaces().values():
            if CLUSTER_TAG not in interface.tags:
                continue
            assert interface.instance_id, f"{interface.id} is leaked"
            goes = interface.delete_on_termination or not self.cloud.capabilities.protects_on_create
            assert goes, f"{interface.id} would outlive its instance"
        assert not [i for i in self.site.service.intents() if i.node]
