"""DatapathService: messages to questions of the datapath and back, on the local socket."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from datapath.events.aggregate import Aggregator, Line
from datapath.ports import DatapathView
from datapath.view.select import need_selection
from services.api.node import convert_datapath as convert
from services.api.node.v1 import datapath_pb2 as wire
from services.api.node.v1 import datapath_pb2_grpc

T = TypeVar("T")

BATCH: Final = 500
# Counted lines are told this long after their interval at the latest, also when no event wakes the stream.
TICK_S: Final = 0.1
LONGEST_INTERVAL_S: Final = 60.0
# How long a stream pauses, by the time that its last batch took: a quarter of a core for each reader at most.
PAUSE_RATIO: Final = 3.0


class DatapathHandlers(datapath_pb2_grpc.DatapathServiceServicer):
    def __init__(self, view: DatapathView) -> None:
        self._view = view

    async def GetStatus(  # noqa: N802
        self, request: wire.GetDatapathStatusRequest, context: Any
    ) -> wire.GetDatapathStatusResponse:
        return convert.status(await asyncio.to_thread(self._view.status))

    async def ListMaps(self, request: wire.ListMapsRequest, context: Any) -> wire.ListMapsResponse:  # noqa: N802
        found = await asyncio.to_thread(self._view.maps)
        return wire.ListMapsResponse(maps=[convert.map_use(one) for one in found])

    async def ListEndpoints(  # noqa: N802
        self, request: wire.ListDatapathEndpointsRequest, context: Any
    ) -> wire.ListDatapathEndpointsResponse:
        found = await asyncio.to_thread(self._view.endpoints)
        return wire.ListDatapathEndpointsResponse(endpoints=[convert.endpoint(one) for one in found])

    async def ListFlows(  # noqa: N802
        self, request: wire.ListFlowsRequest, context: Any
    ) -> AsyncIterator[wire.ListFlowsResponse]:
        wanted = convert.selection(request.filter)
        states, order = tuple(request.states), request.order or "none"
        flows = partial(self._view.flows, wanted, states=states, order=order, limit=request.limit)
        async for some in _batches(flows, request.limit):
            yield wire.ListFlowsResponse(flows=[convert.flow(one) for one in some])

    async def FlushFlows(self, request: wire.FlushFlowsRequest, context: Any) -> wire.FlushFlowsResponse:  # noqa: N802
        wanted = convert.selection(request.filter)
        need_selection(wanted, request.all)
        return wire.FlushFlowsResponse(deleted=await asyncio.to_thread(self._view.flush_flows, wanted))

    async def ListNat(  # noqa: N802
        self, request: wire.ListNatRequest, context: Any
    ) -> AsyncIterator[wire.ListNatResponse]:
        wanted = convert.selection(request.filter)
        async for some in _batches(partial(self._view.translations, wanted), request.limit):
            yield wire.ListNatResponse(translations=[convert.translation(one) for one in some])

    async def GetDrops(self, request: wire.GetDropsRequest, context: Any) -> wire.GetDropsResponse:  # noqa: N802
        return convert.drops(await asyncio.to_thread(self._view.counts))

    async def ListAddresses(  # noqa: N802
        self, request: wire.ListAddressesRequest, context: Any
    ) -> wire.ListAddressesResponse:
        address = convert.address(request.address)
        found = await asyncio.to_thread(self._view.addresses, address)
        return wire.ListAddressesResponse(addresses=[convert.address_entry(one) for one in found])

    async def ListPolicies(  # noqa: N802
        self, request: wire.ListPoliciesRequest, context: Any
    ) -> wire.ListPoliciesResponse:
        found = await asyncio.to_thread(self._view.policies, request.pod)
        return wire.ListPoliciesResponse(policies=[convert.policy(one) for one in found])

    async def ListDevices(  # noqa: N802
        self, request: wire.ListDevicesRequest, context: Any
    ) -> wire.ListDevicesResponse:
        found = await asyncio.to_thread(self._view.devices)
        return wire.ListDevicesResponse(devices=[convert.device(one) for one in found])

    async def Trace(self, request: wire.TraceRequest, context: Any) -> wire.TraceResponse:  # noqa: N802
        traced = await asyncio.to_thread(
            self._view.trace, request.pod, request.destination, request.port, request.protocol
        )
        return convert.traced(traced)

    async def ListPrefilter(  # noqa: N802
        self, request: wire.ListPrefilterRequest, context: Any
    ) -> wire.ListPrefilterResponse:
        return convert.prefilter(await asyncio.to_thread(self._view.prefilter))

    async def UpdatePrefilter(  # noqa: N802
        self, request: wire.UpdatePrefilterRequest, context: Any
    ) -> wire.UpdatePrefilterResponse:
        added, deleted = await asyncio.to_thread(
            self._view.update_prefilter, list(request.add), list(request.delete), force=request.force
        )
        return wire.UpdatePrefilterResponse(added=added, deleted=deleted)

    async def Monitor(  # noqa: N802
        self, request: wire.MonitorRequest, context: Any
    ) -> AsyncIterator[wire.MonitorResponse]:
        names, packets = self._view.names, request.packets
        interval_s = min(max(request.interval_s, 0.0), LONGEST_INTERVAL_S)
        aggregator = Aggregator(interval_s) if interval_s else None
        came = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._view.subscribe(convert.event_filter(request.filter), lambda: _wake(loop, came)) as subscription:
            lost_in_ring = subscription.lost_in_ring
            yield wire.MonitorResponse()
            while True:
                await _wait(came, TICK_S if aggregator else None)
                came.clear()
                full = True
                while full:
                    began_s = time.monotonic()
                    taken = subscription.take(BATCH)
                    full = len(taken.events) == BATCH
                    lines: Sequence[Line] = (
                        [Line(event, 1, event.suppressed, event.length) for event in taken.events]
                        if aggregator is None
                        else list(aggregator.add(taken.events, began_s))
                    )
                    lost_before, lost_in_ring = lost_in_ring, subscription.lost_in_ring
                    wall_offset_ns = time.time_ns() - time.monotonic_ns()
                    message = wire.MonitorResponse(
                        events=[convert.event(line, names, wall_offset_ns, packets=packets) for line in lines],
                        lost=taken.lost,
                        lost_in_ring=lost_in_ring - lost_before,
                    )
                    pause_s = (time.monotonic() - began_s) * PAUSE_RATIO
                    if message.ByteSize():
                        yield message
                    # The daemon has other work: who reads a flood has a share of it, and is told what that cost him.
                    await asyncio.sleep(pause_s)


async def _batches(read: Callable[[], Iterator[T]], limit: int) -> AsyncIterator[list[T]]:
    """What an iterator that blocks yields, some at a time; at most `limit` in all, 0: everything."""
    entries = await asyncio.to_thread(read)
    if limit:
        entries = itertools.islice(entries, limit)
    while some := await asyncio.to_thread(lambda: list(itertools.islice(entries, BATCH))):
        yield some


async def _wait(came: asyncio.Event, at_most_s: float | None) -> None:
    try:
        async with asyncio.timeout(at_most_s):
            await came.wait()
    except TimeoutError:
        return


def _wake(loop: asyncio.AbstractEventLoop, came: asyncio.Event) -> None:
    loop.call_soon_threadsafe(came.set)
