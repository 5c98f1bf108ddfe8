"""Builds the node daemon. The only place where its parts meet.

What the kernel and the journal hold comes first, then the sockets that ask for it, then the central services: their
absence delays nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final

import grpc
import structlog
from prometheus_client import REGISTRY
from prometheus_client.registry import Collector

from datapath.conntrack.sizing import SHARES
from datapath.endpoints.wiring import KernelEndpoints
from datapath.events.expired import closed_events
from datapath.events.hub import EventHub
from datapath.identities.model import ClusterState
from datapath.loader.ringbuf import RingReader
from datapath.retire import retire
from datapath.routes.kernel import KernelRouting
from datapath.service import Datapath
from datapath.view.kernel import KernelView, NodeNames
from ipam.journal import Journal
from ipam.local import LocalPool
from ipam.ranges import PodRanges
from services.api.ipam.v1 import ipam_pb2
from services.api.node.v1 import datapath_pb2_grpc, node_pb2_grpc
from services.api.registry.v1 import registry_pb2
from services.node.clients import Connection, IpamClient, RegistryClient, Signal, registry_endpoint
from services.node.cluster import Cluster
from services.node.cluster_ranges import with_ranges
from services.node.cni import CniHandler, CniServer
from services.node.datapath import DatapathRunner, PodNames, config_of
from services.node.datapath_handlers import DatapathHandlers
from services.node.handlers import NodeHandlers
from services.node.metrics import ConntrackCollector, DatapathCollector, NodeCollector
from services.node.network import Network, Parts, settle
from services.node.pods import Pods
from services.node.settings import PoolSettings, Settings
from services.runtime.client import aio_channel
from services.runtime.clock import SystemClock
from services.runtime.lifecycle import Lifecycle
from services.runtime.server import GrpcServer, allow

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_log = structlog.get_logger("datapath")


async def build(settings: Settings, life: Lifecycle) -> None:
    version = metadata.version("plimsoll")
    settings = await with_ranges(settings, _connector(settings, settings.registry, "service/registry"))
    signal = Signal()
    journal = await life.enter(Journal(settings.state_dir / "node.db"))
    names = PodNames(lambda: pods.attached())

    def changed() -> None:
        names.forget()
        signal.fire()

    pool = LocalPool(
        journal,
        SystemClock(),
        boot_id=_boot_id(),
        cooldown_s=settings.cooldown_s,
        choice=settings.choice,
        on_change=changed,
    )
    datapath = await _datapath(settings, life)
    endpoints, routing = KernelEndpoints(datapath.pods if datapath is not None else None), KernelRouting()
    way_mtu: Callable[[int], int] = datapath.pod_mtu if datapath is not None else int
    ranges = settings.pod_ranges
    network = Network(
        routing,
        pool,
        interval_s=settings.reconcile_interval_s,
        ranges=ranges.texts if ranges is not None else (),
        way_mtu=way_mtu,
    )
    mtu_of: Callable[[str], int] = (lambda _: settings.mtu) if settings.mtu else network.mtu_of
    address6_of = ranges.address6_of if ranges is not None else pool.address6_of
    pods = Pods(
        pool,
        endpoints,
        mtu_of=mtu_of,
        address6_of=address6_of,
        pool_of=settings.pool_of,
        wait_s=settings.address_wait_s,
    )
    await asyncio.to_thread(_restore, endpoints, network, pods, ranges)
    if datapath is not None:
        await asyncio.to_thread(datapath.pods.keep, {one.endpoint.host_device for one in pods.attached()})

    connections: list[Connection] = []
    cluster: Cluster | None = None
    served = ["NodeService"] if datapath is None else ["NodeService", "DatapathService"]
    server = GrpcServer(settings, policy={f"/plimsoll.node.v1.{one}/*": allow() for one in served})
    handlers = NodeHandlers(
        settings.name,
        version,
        pool=pool,
        pods=pods,
        endpoints=endpoints,
        network=network,
        connections=lambda: connections,
        identity_of=lambda owner: cluster.identity_of((settings.name, owner)) if cluster is not None else 0,
    )
    server.add(node_pb2_grpc.add_NodeServiceServicer_to_server, handlers, "plimsoll.node.v1.NodeService")
    runner = DatapathRunner(datapath, interval_s=settings.reconcile_interval_s) if datapath is not None else None
    if datapath is not None and runner is not None:
        view = await _view(datapath, runner, names, life)
        limits = {name: datapath.programs.maps[name].max_entries for name in SHARES}
        await life.enter(_collected(DatapathCollector(view, limits)))
        server.add(
            datapath_pb2_grpc.add_DatapathServiceServicer_to_server,
            DatapathHandlers(view),
            "plimsoll.node.v1.DatapathService",
        )
    await life.enter(server)
    await life.enter(_collected(NodeCollector(pool, lambda: connections, lambda: cluster)))
    await life.enter(CniServer(settings.cni_socket, CniHandler(pods, pool)))
    life.defer(_nobody_waits(pool))
    life.spawn("network", network.run)
    if runner is not None:
        life.spawn("datapath", runner.run)
    life.spawn("settle", lambda: settle(pool))

    ipam: IpamClient | None = None
    if settings.ipam:
        specs = [node_spec(settings), *(pool_spec(settings, each) for each in settings.pools)]
        parts = Parts(network, [each.pool for each in specs], pool.interfaces())
        await parts.begin()
        clients = [
            IpamClient(
                settings.ipam,
                _connector(settings, settings.ipam, f"service/ipam-{settings.cloud}"),
                spec,
                take=partial(parts.take, spec.pool),
                usage=partial(pool.usage, spec.pool),
                changed=signal.subscribe(),
                names=None if spec.pool else [each.name for each in settings.pools],
            )
            for spec in specs
        ]
        ipam = clients[0]
        for client in clients:
            connections.append(client)
            life.spawn(client.service, client.run)
    if settings.registry:
        registry = RegistryClient(
            settings.registry,
            _connector(settings, settings.registry, "service/registry"),
            registry_node(settings, version, routing),
            endpoints=lambda: _endpoints(settings.name, pods, pool),
            changed=signal.subscribe(),
            heartbeat_s=settings.heartbeat_interval_s,
            capacity=lambda: ipam.capacity if ipam is not None else None,
            take=runner.take if runner is not None else _know,
        )
        cluster = registry.cluster
        connections.append(registry)
        life.spawn("registry", registry.run)


async def _datapath(settings: Settings, life: Lifecycle) -> Datapath | None:
    """The programs, in force for all pods that a former life left; None: the kernel's plain routing carries them."""
    if settings.datapath.mode == "kernel":
        if left := await asyncio.to_thread(retire, settings.datapath.bpf_dir):
            _log.warning("plain routing carries pods now: the programs of before are detached", **asdict(left))
        return None
    datapath = Datapath(config_of(settings.datapath), settings.name)
    await asyncio.to_thread(datapath.start)
    await life.enter(closing(datapath))
    await life.enter(_collected(ConntrackCollector(datapath.collector)))
    return datapath


async def _view(datapath: Datapath, runner: DatapathRunner, names: PodNames, life: Lifecycle) -> KernelView:
    maps = datapath.programs.maps
    records = RingReader(maps["events"], maps["lost_events"])
    await life.enter(closing(records))
    hub = await life.enter(EventHub(records))
    if datapath.config.flow_events:
        datapath.collector.ended = lambda flows: hub.give(closed_events(flows)) if hub.heard else None
    known = NodeNames(datapath, names.of, runner.elsewhere)
    view = KernelView(
        datapath, hub, known, pod_of=names.of, pods_elsewhere=runner.elsewhere, prefilter=datapath.prefilter
    )
    await life.enter(closing(view))
    return view


@contextmanager
def _collected(collector: Collector) -> Iterator[None]:
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


def _nobody_waits(pool: LocalPool) -> Callable[[], Awaitable[None]]:
    async def refuse() -> None:
        pool.refuse_waiting()

    return refuse


async def _know(_: ClusterState) -> None:
    """Takes the cluster where no map is to be written of it: the client remembers it, for people who ask."""


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _restore(endpoints: KernelEndpoints, network: Network, pods: Pods, ranges: PodRanges | None) -> None:
    endpoints.prepare()
    network.restore()
    pods.restore()
    # After the pods: what the kernel holds of a lost journal is no longer free then.
    if ranges is not None:
        network.hold({one.id: one for one in [ranges.interface()]})


def _endpoints(node: str, pods: Pods, pool: LocalPool) -> list[registry_pb2.Endpoint]:
    interfaces = pool.interfaces()
    return [registry_endpoint(node, one, interfaces.get(one.lease.interface_id)) for one in pods.attached()]


def _connector(settings: Settings, target: str, identity: str) -> Callable[[], grpc.aio.Channel]:
    return lambda: aio_channel(target, settings.tls, identity)


def node_spec(settings: Settings) -> ipam_pb2.NodeSpec:
    """What this node says of itself; what it leaves unset is the service's to decide."""
    spec = ipam_pb2.NodeSpec(
        name=settings.name,
        instance_id=settings.instance_id,
        instance_type=settings.instance_type,
        subnet_ids=settings.subnet_ids,
        subnet_tags=settings.subnet_tags,
        security_group_ids=settings.security_group_ids,
        security_group_tags=settings.security_group_tags,
        exclude_interface_tags=settings.exclude_interface_tags,
        prefix_delegation=settings.prefix_delegation,
        ipv6=settings.ipv6,
        use_primary_address=settings.use_primary_address,
        public_address_tags=settings.public_address_tags,
        labels=settings.labels,
        first_interface_index=settings.first_interface_index,
        delete_on_termination=settings.delete_on_termination,
        release_excess=settings.release_excess,
    )
    if settings.watermarks is not None:
        spec.watermarks.CopyFrom(ipam_pb2.Watermarks(**settings.watermarks.model_dump()))
    if settings.policy is not None:
        spec.policy.CopyFrom(ipam_pb2.Policy(**settings.policy.model_dump()))
    return spec


_OWN_TO_EACH_POOL: Final = (
    "subnet_ids", "subnet_tags", "security_group_ids", "security_group_tags", "public_address_tags", "watermarks",
    "policy",
)  # fmt: skip


def pool_spec(settings: Settings, pool: PoolSettings) -> ipam_pb2.NodeSpec:
    """What this node says of a named pool. Subnets, groups, marks and targets are its own, or the service's; the public
    address is the default pool's."""
    spec = node_spec(settings)
    for field in _OWN_TO_EACH_POOL:
        spec.ClearField(field)
    spec.pool = pool.name
    spec.subnet_ids.extend(pool.subnet_ids)
    spec.subnet_tags.update(pool.subnet_tags)
    spec.security_group_ids.extend(pool.security_group_ids)
    spec.security_group_tags.update(pool.security_group_tags)
    if pool.watermarks is not None:
        spec.watermarks.CopyFrom(ipam_pb2.Watermarks(**pool.watermarks.model_dump()))
    if pool.policy is not None:
        spec.policy.CopyFrom(ipam_pb2.Policy(**pool.policy.model_dump()))
    return spec


def registry_node(settings: Settings, version: str, routing: KernelRouting) -> registry_pb2.Node:
    return registry_pb2.Node(
        name=settings.name,
        addresses=[str(one) for one in settings.addresses] or list(routing.node_addresses()),
        labels=settings.labels,
        cloud="" if settings.pod_cidrs else settings.cloud,
        instance_id=settings.instance_id,
        instance_type=settings.instance_type,
        zone=settings.zone,
        version=version,
        pod_cidrs=settings.pod_cidrs,
        routing_mode=str(settings.datapath.routing),
    )
