"""A node by hand: all of its daemon that its IPAM service sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Self

import grpc

from ipam.model import AddressState
from lab.site.processes import UNTIL_TIMEOUT_S, SiteError
from services.api.ipam.convert import STATE_FROM_PB
from services.api.ipam.v1 import ipam_pb2 as pb
from services.api.ipam.v1 import ipam_pb2_grpc as pb_grpc
from services.runtime.watch import Follower, Mirror, Position


class NodeClient:
    """What a node daemon does on its stream: mirrors its pool, tells its usage, answers marks."""

    def __init__(self, name: str, instance_id: str, channel: grpc.aio.Channel, spec: Mapping[str, Any]) -> None:
        self.name = name
        self.in_use: set[str] = set()
        self.pending_pods = 0
        self.keep_marked = False
        self._sequence = 0
        self._channel = channel
        self._stub = pb_grpc.IpamServiceStub(channel)
        self._spec = pb.NodeSpec(name=name, instance_id=instance_id, **spec)
        self._mirror: Mirror[str, pb.Interface] = Mirror()
        self._changed = asyncio.Condition()
        self._follower: Follower[pb.WatchRequest, pb.WatchResponse] = Follower(
            name, self._open, self._apply, lambda ack: pb.WatchRequest(ack=ack), backoff_s=(0.05, 0.5)
        )
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follower.run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._channel.close()

    @property
    def interfaces(self) -> dict[str, pb.Interface]:
        return self._mirror.state

    @property
    def states(self) -> dict[str, AddressState]:
        """Every address of the pool by the service's words."""
        return {
            each.address: STATE_FROM_PB[each.state]
            for interface in self.interfaces.values()
            for each in interface.addresses
        }

    @property
    def addresses(self) -> set[str]:
        return set(self.states)

    @property
    def error(self) -> str:
        return self._follower.state.last_error

    @property
    def connected(self) -> bool:
        return self._follower.state.connected

    async def use(self, count: int) -> None:
        """Makes `count` pods run: takes free addresses, or gives up some."""
        while len(self.in_use) > count:
            self.in_use.pop()
        free = [
            each for each, state in self.states.items() if state is AddressState.AVAILABLE and each not in self.in_use
        ]
        self.in_use |= set(sorted(free)[: count - len(self.in_use)])
        await self.tell()

    async def tell(self) -> None:
        await self._follower.send(pb.WatchRequest(usage=self._usage()))

    async def until(self, reached: Callable[[], bool], timeout_s: float = UNTIL_TIMEOUT_S) -> None:
        """Waits until `reached()` holds after a change of the pool. Raises SiteError with the pool as it is."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(reached)
        except TimeoutError:
            raise SiteError(f"{self.name} stays at {self.states}, in use {self.in_use}; {self.error}") from None

    def _usage(self) -> pb.Usage:
        self._sequence += 1
        marked = {each for each, state in self.states.items() if state is AddressState.MARKED}
        refused = marked if self.keep_marked else marked & self.in_use
        return pb.Usage(
            in_use=sorted(self.in_use),
            ready=sorted(marked - refused),
            refused=sorted(refused),
            pending_pods=self.pending_pods,
            sequence=self._sequence,
        )

    async def _open(self, position: Position) -> Any:
        call = self._stub.Watch()
        opened = pb.WatchRequest.Open(node=self._spec, position=position.to_proto(), usage=self._usage())
        await call.write(pb.WatchRequest(open=opened))
        return call

    async def _apply(self, message: pb.WatchResponse) -> None:
        upserts = {each.id: each for each in message.interfaces}
        self._mirror.apply(message.header, upserts, list(message.deleted_interfaces))
        if AddressState.MARKED in self.states.values():
            await self.tell()
        async with self._changed:
            self._changed.notify_all()
