"""The datapath in the daemon: its settings in the domain's words, and what keeps it going while the daemon runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

import structlog

from datapath.config import DatapathConfig, Timeouts
from datapath.conntrack.sizing import Sizing
from datapath.errors import DatapathError
from datapath.identities.model import ClusterState
from datapath.network_events import Changes, NetworkEvents
from datapath.service import Datapath
from services.node.pods import Attached
from services.node.settings import DatapathSettings

_REFRESH_S = 30.0
_AGAIN_S = 5.0

_log = structlog.get_logger("datapath")


def config_of(settings: DatapathSettings) -> DatapathConfig:
    """Raises InvalidSetting."""
    low, _, high = settings.masquerade_ports.partition("-")
    return DatapathConfig(
        bpf_dir=settings.bpf_dir,
        routing=settings.routing,
        ipv6=settings.ipv6,
        devices=tuple(settings.devices),
        endpoint_routes=settings.endpoint_routes,
        masquerade4=settings.masquerade,
        masquerade6=settings.masquerade6,
        nat_ports=(int(low), int(high)),
        cluster_cidrs=tuple(map(str, settings.cluster_cidrs)),
        stack_cidrs=tuple(map(str, settings.stack_cidrs)),
        masquerade_file=settings.masquerade_file,
        tunnel_port=settings.tunnel_port,
        recheck_s=settings.recheck_s,
        timeouts=Timeouts(**settings.timeouts.model_dump()),
        sizing=Sizing(ratio=settings.map_ratio, entries=settings.map_entries),
        trace_every=settings.trace_every,
        flow_events=settings.flow_events,
        verdict_events=settings.verdict_events,
        prefilter=settings.prefilter,
        sockmap_cgroup=settings.sockmap_cgroup,
    )


class PodNames:
    """Which pod has an address, from memory until something changes.

    :param attached: this node's pods."""

    def __init__(self, attached: Callable[[], Sequence[Attached]]) -> None:
        self._attached = attached
        self._names: dict[str, str] | None = None

    def forget(self) -> None:
        """Something has changed."""
        self._names = None

    def of(self, address: str) -> str:
        """ "namespace/name", the pod's owner if it has no name, or empty."""
        names = self._names
        if names is None:
            names = {
                one: attached.lease.pod or str(attached.lease.owner)
                for attached in self._attached()
                for one in attached.endpoint.addresses
            }
            self._names = names
        return names.get(address, "")


class DatapathRunner:
    """Keeps a started datapath as the network and the cluster want it.

    :param interval_s: how often it looks without an event.
    """

    def __init__(self, datapath: Datapath, *, interval_s: float = _REFRESH_S) -> None:
        self._datapath = datapath
        self._interval_s = min(interval_s, _REFRESH_S)
        self._told: Mapping[str, str] = {}
        # Pods of other nodes by their addresses.
        self.elsewhere: dict[str, str] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._refresh())
            tasks.create_task(self._datapath.collector.run())
            tasks.create_task(self._watch_ranges())

    async def take(self, state: ClusterState) -> Mapping[str, str] | None:
        """For the registry's client. Raises DatapathError: the state comes again."""
        for change in state.endpoint_changes.values():
            for address in change.before.addresses if change.before else ():
                self.elsewhere.pop(address, None)
            for address in change.after.addresses if change.after else ():
                self.elsewhere[address] = change.after.pod if change.after else ""
        return self._tell(await asyncio.to_thread(self._datapath.take, state))

    async def _follow(self) -> None:
        """News of the network, in a thread: a burst of them is one."""
        stop = threading.Event()
        with NetworkEvents() as events:
            following = asyncio.get_running_loop().run_in_executor(None, events.follow, self._changed, stop)
            try:
                await asyncio.shield(following)
            finally:
                stop.set()
                await following

    def _changed(self, changes: Changes) -> None:
        self._attempt(lambda: self._datapath.changed(changes))

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await asyncio.to_thread(self._attempt, self._datapath.refresh)

    async def _watch_ranges(self) -> None:
        while True:
            next_s = _AGAIN_S
            try:
                next_s = await asyncio.to_thread(self._datapath.look_at_ranges)
            except DatapathError as error:
                _log.error("ranges that are not masqueraded to are not in force", error=error.message)
            await asyncio.sleep(next_s)

    def _attempt(self, work: Callable[[], object]) -> None:
        """What fails is tried again with the next look."""
        try:
            work()
        except DatapathError as error:
            _log.error("the datapath is not as it should be", error=error.message)
        except OSError as error:
            _log.error("the kernel could not be asked", error=str(error))
        self._tell(self._datapath.underlay.problems)

    def _tell(self, problems: Mapping[str, str]) -> Mapping[str, str]:
        for subject, why in problems.items():
            if self._told.get(subject) != why:
                _log.warning("not in force", subject=subject, why=why)
        self._told = dict(problems)
        return problems


__all__ = ["DatapathRunner", "PodNames", "config_of"]
