"""What a node makes of the registry's stream: states, what is new in each, and what it does not believe at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from datapath.identities.model import UNMANAGED, ClusterEndpoint, ClusterNode, ClusterState, EndpointKey
from services.api.registry.v1 import registry_pb2
from services.api.watch.v1 import watch_pb2
from services.node.cluster import Cluster
from services.node.metrics import NodeCollector

DOUBT_S = 60.0


class Stream:
    """Answers of a registry; `epoch` names its life."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.epoch = "e1"
        self.revision = 0
        self.cluster = Cluster(lambda: self.now, doubt_s=DOUBT_S)

    def tell(
        self, *endpoints: registry_pb2.Endpoint, nodes: tuple[str, ...] = (), gone: tuple[EndpointKey, ...] = (),
        gone_nodes: tuple[str, ...] = (), snapshot: bool = False, complete: bool = True,
    ) -> ClusterState | None:  # fmt: skip
        self.revision += 1
        position = watch_pb2.Position(epoch=self.epoch, revision=self.revision) if complete else None
        return self.cluster.apply(
            registry_pb2.WatchResponse(
                header=watch_pb2.Header(position=position, snapshot=snapshot, complete=complete),
                nodes=[registry_pb2.Node(name=name, addresses=[f"10.0.0.{name[-1]}"]) for name in nodes],
                endpoints=endpoints,
                deleted_nodes=gone_nodes,
                deleted_endpoints=[registry_pb2.EndpointKey(node=node, id=id) for node, id in gone],
            )
        )

    def taken(self, state: ClusterState | None) -> ClusterState:
        assert state is not None
        self.cluster.taken()
        return state


@pytest.fixture
def stream() -> Stream:
    return Stream()


def pod(id: str, *addresses: str, node: str = "n1", identity: int = 256) -> registry_pb2.Endpoint:
    return registry_pb2.Endpoint(node=node, id=id, addresses=addresses, identity=identity, labels={"app": "web"})


def test_the_first_state_is_whole_even_if_there_is_nothing(stream: Stream) -> None:
    state = stream.taken(stream.tell(snapshot=True))
    assert (state.whole, state.nodes, state.endpoints) == (True, {}, {})
    assert stream.tell() is None, "nothing new"


def test_facts_are_those_of_the_messages(stream: Stream) -> None:
    node = registry_pb2.Node(
        name="n1", addresses=["10.0.0.1"], pod_cidrs=["10.1.0.0/24"], routing_mode="tunnel", tunnel_address="10.0.0.2"
    )
    header = watch_pb2.Header(position=watch_pb2.Position(epoch="e", revision=1), snapshot=True, complete=True)
    message = pod("a", "10.1.0.5", "fd00::5")
    response = registry_pb2.WatchResponse(header=header, nodes=[node], endpoints=[message, pod("b", identity=0)])
    state = stream.taken(stream.cluster.apply(response))
    assert state.nodes == {"n1": ClusterNode("n1", ("10.0.0.1",), ("10.1.0.0/24",), "tunnel", "10.0.0.2")}
    a = ClusterEndpoint("n1", "a", ("10.1.0.5", "fd00::5"), 256, {"app": "web"})
    assert state.endpoints["n1", "a"] == a
    assert state.endpoints["n1", "b"].identity == UNMANAGED, "a registry of an older release gives none"
    assert stream.cluster.identity_of(("n1", "a")) == 256
    assert stream.cluster.identity_of(("n1", "c")) == 0


def test_a_snapshot_counts_when_it_is_complete(stream: Stream) -> None:
    assert stream.tell(pod("a"), nodes=("n1",), snapshot=True, complete=False) is None
    state = stream.taken(stream.tell(pod("b")))
    assert set(state.endpoints) == set(state.endpoint_changes) == {("n1", "a"), ("n1", "b")}
    assert set(state.node_changes) == {"n1"}


def test_one_change_is_told_alone_with_what_was_before(stream: Stream) -> None:
    stream.taken(stream.tell(pod("a", "10.1.0.1"), pod("b", "10.1.0.2"), nodes=("n1",), snapshot=True))
    state = stream.taken(stream.tell(pod("a", "10.1.0.1", identity=300), pod("c", "10.1.0.3"), gone=(("n1", "b"),)))
    assert not state.whole
    assert not state.node_changes
    changes = {key[1]: change for key, change in state.endpoint_changes.items()}
    assert {id: (one.before is None, one.after is None) for id, one in changes.items()} == {
        "a": (False, False), "b": (False, True), "c": (True, False),
    }  # fmt: skip
    assert changes["b"].before is not None
    assert changes["b"].before.addresses == ("10.1.0.2",)
    assert stream.tell(pod("c", "10.1.0.3"), gone=(("n1", "never"),)) is None


def test_what_was_not_taken_comes_again_with_what_is_new(stream: Stream) -> None:
    stream.taken(stream.tell(pod("a", "10.1.0.1"), snapshot=True))
    stream.tell(pod("a", "10.1.0.2"), pod("b"))
    state = stream.taken(stream.tell(pod("a", "10.1.0.3"), gone=(("n1", "b"),)))
    [change] = state.endpoint_changes.values()
    assert change.before is not None
    assert change.after is not None
    assert (change.before.addresses, change.after.addresses) == (("10.1.0.1",), ("10.1.0.3",))
    stream.tell(gone=(("n1", "a"),))
    assert stream.tell(pod("a", "10.1.0.3")) is None, "gone and back before anybody saw it"


def test_a_registry_that_comes_back_with_the_same_changes_nothing(stream: Stream) -> None:
    stream.taken(stream.tell(pod("a", "10.1.0.1"), pod("b"), nodes=("n1",), snapshot=True))
    stream.epoch, stream.revision = "e2", 0
    assert stream.tell(pod("b"), nodes=("n1",), snapshot=True, complete=False) is None
    assert stream.tell(pod("a", "10.1.0.1")) is None
    assert stream.cluster.doubtful_for_s() == float("inf")


def test_what_a_registry_without_memory_does_not_know_is_kept_until_its_node_is_back(stream: Stream) -> None:
    stream.taken(stream.tell(pod("a"), pod("z", node="n2"), nodes=("n1", "n2"), snapshot=True))
    stream.epoch, stream.revision = "e2", 0
    assert stream.tell(pod("a"), nodes=("n1",), snapshot=True) is None
    stream.now += DOUBT_S - 1
    assert stream.cluster.expire() is None
    assert stream.tell(pod("z", node="n2"), nodes=("n2",)) is None
    stream.now += 10
    assert stream.cluster.expire() is None, "nothing is doubtful any more"


def test_what_nobody_tells_any_more_is_forgotten_in_the_end(stream: Stream) -> None:
    stream.taken(stream.tell(pod("a"), pod("z", node="n2"), nodes=("n1", "n2"), snapshot=True))
    for epoch in ("e2", "e3"):
        stream.epoch = epoch
        assert stream.tell(pod("a"), nodes=("n1",), snapshot=True) is None
        stream.now += DOUBT_S / 2
    state = stream.taken(stream.cluster.expire())
    assert (set(state.nodes), set(state.endpoints)) == ({"n1"}, {("n1", "a")})
    assert (set(state.node_changes), set(state.endpoint_changes)) == ({"n2"}, {("n2", "z")})
    assert stream.cluster.counts() == (1, 1)


def test_what_the_registry_says_is_gone_is_gone_also_by_a_snapshot_of_the_same_life(stream: Stream) -> None:
    stream.taken(stream.tell(pod("a"), pod("b"), nodes=("n1",), snapshot=True))
    state = stream.taken(stream.tell(pod("a"), nodes=("n1",), snapshot=True))
    assert set(state.endpoint_changes) == {("n1", "b")}
    stream.epoch = "e2"
    assert stream.tell(nodes=("n1",), snapshot=True) is None
    assert set(stream.taken(stream.tell(gone=(("n1", "a"),))).endpoint_changes) == {("n1", "a")}


def test_what_is_known_is_counted(stream: Stream, memory_node: Any) -> None:
    prometheus = CollectorRegistry()
    prometheus.register(NodeCollector(memory_node.pool, list, lambda: stream.cluster))
    stream.taken(stream.tell(pod("a"), pod("b"), nodes=("n1",), snapshot=True))
    assert prometheus.get_sample_value("plimsoll_node_cluster_nodes") == 1
    assert prometheus.get_sample_value("plimsoll_node_cluster_endpoints") == 2


ids = st.sampled_from("abcd")
batches = st.lists(
    st.tuples(
        st.dictionaries(ids, st.integers(1, 3), max_size=3), st.sets(ids, max_size=2), st.booleans(), st.booleans(),
        st.sampled_from(["take", "fail"]), st.booleans(), st.sampled_from([0.0, 30.0, 61.0]),
    ),
    max_size=25,
)  # fmt: skip


@settings(deadline=None)
@given(batches)
def test_changes_lead_from_state_to_state(sequence: list[tuple[Any, ...]]) -> None:
    stream = Stream()
    held: dict[EndpointKey, ClusterEndpoint] = {}
    for upserts, deletes, snapshot, complete, outcome, new_life, pause_s in sequence:
        if new_life:
            stream.epoch += "+"
            snapshot = True  # a new life begins with one
        told = stream.tell(
            *(pod(id, f"10.1.0.{n}") for id, n in upserts.items()),
            gone=tuple(("n1", id) for id in deletes - upserts.keys()),
            snapshot=snapshot,
            complete=complete,
        )
        stream.now += pause_s
        for late in (False, True):
            state = stream.cluster.expire() if late else told
            if state is None or outcome == "fail":
                continue
            for key, change in state.endpoint_changes.items():
                assert change.before != change.after
                assert held.get(key) == change.before
                if change.after is None:
                    del held[key]
                else:
                    held[key] = change.after
            assert held == state.endpoints
            stream.cluster.taken()
