"""What the node daemon counts. Gauges are read from the pool when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from datapath.conntrack.gc import Collector as ConnectionCollector
from datapath.events import words
from datapath.ports import DatapathView
from ipam.local import LocalPool
from services.node.clients import Connection
from services.node.cluster import Cluster

CNI_SECONDS: Final = Histogram(
    "plimsoll_node_cni_seconds",
    "time to answer a CNI request",
    ["command", "outcome"],
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 5, 10),
)


class NodeCollector(Collector):
    """Addresses by interface and state, waiting pods, connections, what is known of the cluster."""

    def __init__(
        self,
        pool: LocalPool,
        connections: Callable[[], Sequence[Connection]],
        cluster: Callable[[], Cluster | None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._connections = connections
        self._cluster = cluster

    def collect(self) -> Iterator[GaugeMetricFamily]:
        addresses = GaugeMetricFamily("plimsoll_node_addresses", "addresses of the pool", labels=["interface", "state"])
        usable = GaugeMetricFamily("plimsoll_node_interface_usable", "1: it carries new pods", labels=["interface"])
        for one in self._pool.counts():
            states = {"available": one.available, "in_use": one.in_use, "cooling": one.cooling, "fenced": one.fenced}
            for state, count in states.items():
                addresses.add_metric([one.interface.id, state], count)
            usable.add_metric([one.interface.id], 0 if one.unusable else 1)
        yield addresses
        yield usable
        yield GaugeMetricFamily("plimsoll_node_pending_pods", "pods without an address", value=self._pool.pending())
        connected = GaugeMetricFamily("plimsoll_node_connected", "1: the stream is open", labels=["service"])
        for connection in self._connections():
            connected.add_metric([connection.service], 1 if connection.state.connected else 0)
        yield connected
        cluster = self._cluster()
        if cluster is not None:
            nodes, endpoints = cluster.counts()
            known = "of the cluster, as the registry told it"
            yield GaugeMetricFamily("plimsoll_node_cluster_nodes", f"nodes {known}", value=nodes)
            yield GaugeMetricFamily("plimsoll_node_cluster_endpoints", f"pods {known}", value=endpoints)


class ConntrackCollector(Collector):
    """Connections of the datapath, as the last pass of their collector saw them."""

    def __init__(self, collector: ConnectionCollector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        last = self._collector.last
        entries = GaugeMetricFamily("plimsoll_datapath_map_entries", "entries that live", labels=["map"])
        pressure = GaugeMetricFamily(
            "plimsoll_datapath_map_pressure", "near 1: new entries push out old ones", labels=["map"]
        )
        for name, table in last.tables.items():
            entries.add_metric([name], table.entries)
            pressure.add_metric([name], table.pressure)
        yield entries
        yield pressure
        flows = GaugeMetricFamily(
            "plimsoll_datapath_flows", "connections that live", labels=["protocol", "family", "state"]
        )
        for kind, count in last.alive.items():
            flows.add_metric([kind.protocol, f"ipv{kind.family}", kind.state], count)
        yield flows
        deleted = CounterMetricFamily(
            "plimsoll_datapath_gc_deleted",
            "entries taken out: expired, or of pods that are gone",
            labels=["map", "why"],
        )
        for (name, why), count in self._collector.deleted.items():
            deleted.add_metric([name, why], count)
        yield deleted
        evicted = CounterMetricFamily(
            "plimsoll_datapath_map_evictions", "old entries that a full map pushed out, at least", labels=["map"]
        )
        for name, count in self._collector.evicted.items():
            evicted.add_metric([name], count)
        yield evicted
        yield CounterMetricFamily(
            "plimsoll_datapath_gc_passes", "passes through the maps", value=self._collector.passes
        )
        yield CounterMetricFamily(
            "plimsoll_datapath_gc_seconds", "time that passes took", value=self._collector.seconds
        )


class DatapathCollector(Collector):
    """Packets by hook and end, and how the programs are.

    :param limits: entries that each map of connections may have.
    """

    def __init__(self, view: DatapathView, limits: Mapping[str, int]) -> None:
        self._view = view
        self._limits = limits

    def collect(self) -> Iterator[Metric]:
        yield from self._packets()
        status = self._view.status()
        limits = GaugeMetricFamily("plimsoll_datapath_map_max_entries", "entries that fit", labels=["map"])
        for name, entries in self._limits.items():
            limits.add_metric([name], entries)
        yield limits
        instructions = GaugeMetricFamily(
            "plimsoll_datapath_program_verified_instructions",
            "steps that the kernel's verifier took",
            labels=["program"],
        )
        attachments = GaugeMetricFamily(
            "plimsoll_datapath_attachments", "devices that the program is attached to", labels=["program"]
        )
        for program in status.programs:
            instructions.add_metric([program.name], program.verified_instructions)
            attachments.add_metric([program.name], len(program.attachments))
        yield instructions
        yield attachments
        yield GaugeMetricFamily("plimsoll_datapath_endpoints", "pods that the programs know", value=status.endpoints)
        yield GaugeMetricFamily(
            "plimsoll_datapath_generation", "rises when flows are decided anew", value=status.generation
        )
        yield GaugeMetricFamily("plimsoll_datapath_problems", "what is not in force", value=len(status.troubles))
        events = CounterMetricFamily(
            "plimsoll_datapath_events",
            "read: by the daemon; lost: found no room; suppressed: left out; lost_by_readers: too slow",
            labels=["outcome"],
        )
        events.add_metric(["read"], status.events.read)
        events.add_metric(["lost"], status.events.lost)
        events.add_metric(["suppressed"], status.events.suppressed)
        events.add_metric(["lost_by_readers"], status.events.lost_by_subscribers)
        yield events

    def _packets(self) -> Iterator[Metric]:
        forwarded = [
            CounterMetricFamily(f"plimsoll_datapath_forwarded_{what}", f"{what} that passed", labels=["hook"])
            for what in ("packets", "bytes")
        ]
        dropped = [
            CounterMetricFamily(
                f"plimsoll_datapath_dropped_{what}", f"{what} that were dropped", labels=["hook", "reason"]
            )
            for what in ("packets", "bytes")
        ]
        for one in self._view.counts():
            hook = words.hook_word(one.hook)
            families, labels = forwarded, [hook]
            if one.reason:
                families, labels = dropped, [hook, words.reason_of(one.reason).word]
            for family, value in zip(families, (one.packets, one.bytes), strict=True):
                family.add_metric(labels, value)
        yield from (*forwarded, *dropped)
