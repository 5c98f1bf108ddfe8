"""A node is told its own pool and nothing else, as long as this replica leads."""

from __future__ import annotations

import pytest

from ipam.errors import NotLeader
from ipam.model import AddressState, PoolInterface
from services.api.ipam.v1 import ipam_pb2 as pb
from services.ipam.topics import PoolTopics
from services.runtime.watch import START, Position


def interface(name: str, *addresses: str) -> PoolInterface:
    return PoolInterface(
        id=name, mac="02:00:00:00:00:01", device_index=1, subnet_id="subnet-1", subnet_cidr="10.0.0.0/24",
        gateway="10.0.0.1", primary_address="10.0.0.4", vpc_id="vpc-1", zone="a", vpc_cidrs=("10.0.0.0/16",),
        security_group_ids=("sg-1",), addresses=dict.fromkeys(addresses, AddressState.AVAILABLE),
    )  # fmt: skip


def leading() -> PoolTopics:
    topics = PoolTopics()
    topics.lead(True)
    return topics


async def test_a_node_gets_its_pool_then_what_changes() -> None:
    topics = leading()
    topics.publish("n1", {"eni-1": interface("eni-1", "10.0.0.5")})
    topics.publish("n2", {"eni-2": interface("eni-2", "10.0.0.6")})
    messages = topics.subscribe("n1", START).encoded()
    first = pb.WatchResponse.FromString(await anext(messages))
    assert (first.header.snapshot, first.header.complete) == (True, True)
    assert [each.id for each in first.interfaces] == ["eni-1"]
    topics.publish("n1", {"eni-1": interface("eni-1", "10.0.0.5"), "eni-3": interface("eni-3")})
    second = pb.WatchResponse.FromString(await anext(messages))
    assert not second.header.snapshot
    assert [each.id for each in second.interfaces] == ["eni-3"], "what did not change is not sent again"
    topics.publish("n1", {"eni-3": interface("eni-3")})
    third = pb.WatchResponse.FromString(await anext(messages))
    assert list(third.deleted_interfaces) == ["eni-1"]


async def test_a_node_without_a_pool_gets_an_empty_snapshot() -> None:
    first = pb.WatchResponse.FromString(await anext(leading().subscribe("n1", START).encoded()))
    assert (first.header.snapshot, first.header.complete, len(first.interfaces)) == (True, True, 0)


async def test_a_node_resumes_where_it_stood() -> None:
    topics = leading()
    topics.publish("n1", {"eni-1": interface("eni-1")})
    subscription = topics.subscribe("n1", START)
    first = pb.WatchResponse.FromString(await anext(subscription.encoded()))
    topics.unsubscribe("n1", subscription)
    topics.publish("n1", {"eni-1": interface("eni-1"), "eni-2": interface("eni-2")})
    again = topics.subscribe("n1", Position.from_proto(first.header.position))
    async for wire in again.encoded():
        message = pb.WatchResponse.FromString(wire)
        assert not message.header.snapshot
        if message.interfaces:  # the first one may only say that the position stands
            break
    assert [each.id for each in message.interfaces] == ["eni-2"]


async def test_a_lost_lead_ends_streams_and_forgets() -> None:
    topics = leading()
    topics.publish("n1", {"eni-1": interface("eni-1")})
    subscription = topics.subscribe("n1", START)
    messages = subscription.encoded()
    first = pb.WatchResponse.FromString(await anext(messages))
    topics.lead(False)
    with pytest.raises(StopAsyncIteration):
        await anext(messages)
    with pytest.raises(NotLeader):
        topics.check_leads()
    topics.unsubscribe("n1", subscription)
    topics.lead(True)
    topics.check_leads()
    again = topics.subscribe("n1", Position.from_proto(first.header.position))
    assert pb.WatchResponse.FromString(await anext(again.encoded())).header.snapshot, "another term, another epoch"


async def test_a_node_that_is_gone_leaves_nothing_behind() -> None:
    topics = leading()
    topics.publish("n1", {"eni-1": interface("eni-1")})
    subscription = topics.subscribe("n1", START)
    topics.publish("n1", {})
    topics.unsubscribe("n1", subscription)
    assert not topics._topics
