"""What each node is told: one topic per node, keyed by interface. Their life is one term of leadership."""

from __future__ import annotations

from collections.abc import Mapping

from ipam.errors import NotLeader
from ipam.model import PoolInterface
from services.api.ipam.convert import interface_to
from services.api.ipam.v1 import ipam_pb2 as pb
from services.runtime.watch import Batch, Position, Subscription, Topic


class PoolTopics:
    """Fed by PoolService's callbacks `publish` and `lead`; nodes subscribe."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic[bytes]] = {}
        self._leads = False

    def publish(self, node: str, interfaces: Mapping[str, PoolInterface]) -> None:
        """All that `node` is to know from now on."""
        if interfaces or node in self._topics:
            self._topic(node).replace({key: _packed(each) for key, each in interfaces.items()})
            self._tidy(node)

    def lead(self, leads: bool) -> None:
        """Without the lead nothing here is true any more: streams end, and nodes look for the leader."""
        self._leads = leads
        if leads:
            return
        for topic in self._topics.values():
            topic.close()
        self._topics.clear()

    def check_leads(self) -> None:
        """Raises NotLeader."""
        if not self._leads:
            raise NotLeader(
                "this replica does not lead any more", remedy="connect to the replica that leads", retry_after_s=1.0
            )

    def subscribe(self, node: str, position: Position) -> Subscription[bytes]:
        return self._topic(node).subscribe(position, name=node)

    def unsubscribe(self, node: str, subscription: Subscription[bytes]) -> None:
        subscription.close()
        self._tidy(node)

    def _tidy(self, node: str) -> None:
        """Forgets a topic that has nothing to say to nobody."""
        topic = self._topics.get(node)
        if topic is not None and not topic.followed and not len(topic):
            del self._topics[node]

    def _topic(self, node: str) -> Topic[bytes]:
        topic = self._topics.get(node)
        if topic is None:
            topic = self._topics[node] = Topic(_encode)
        return topic


def _packed(interface: PoolInterface) -> bytes:
    # An eighth of a message's memory, which the topics of thousands of nodes would hold for good.
    return interface_to(interface).SerializeToString(deterministic=True)


def _encode(batch: Batch[bytes]) -> bytes:
    interfaces = [pb.Interface.FromString(each) for each in batch.upserts]
    message = pb.WatchResponse(header=batch.header(), interfaces=interfaces, deleted_interfaces=batch.deletes)
    return message.SerializeToString()
