"""A whole lab, from the lock to the last node; `async with Lab(options)` starts it and removes every trace of it.

Start-up, what stands in one line at the same time:

    folder and lock
    namespaces, fabric, certificates · redis
    fake clouds
    registry · an IPAM service and a worker for each cloud · instances with their namespaces
    node daemons
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self, TypeVar

import grpc
from aiohttp import ClientError
from pyroute2.netlink.exceptions import NetlinkError

from lab.cloud_admin import CloudAdmin
from lab.clouds import CloudKind, chosen
from lab.ec2_admin import Ec2Admin
from lab.fabric import Fabric, Segment
from lab.options import LabOptions
from lab.outside import SourceLog
from lab.pods import CniError, Plugin, Pod, Pods
from lab.processes import Children
from lab.programs import NodePlace, Programs, instance_type, toml
from lab.state import LabError, LabState, start_time
from lab.topology import Port
from services.api.ipam.v1 import ipam_pb2, ipam_pb2_grpc
from services.api.node.v1 import datapath_pb2, datapath_pb2_grpc
from services.runtime.redis import RedisServer, RedisServerError

CONTROL_CIDR: Final = "100.64.0.0/24"
OUTSIDE_CIDR: Final = "203.0.113.0/24"
AT_ONCE: Final = 16
# What --keep-logs leaves: no keys.
KEPT: Final = ("logs", "config", "db")
_LONG_POLL_S: Final = 20.0
_RETRY_S: Final = 0.2
_POLL_S: Final = 0.1
T = TypeVar("T")


class Progress(Protocol):
    """Is told what the lab is busy with."""

    def begin(self, step: str) -> None: ...

    def done(self, step: str) -> None: ...

    def warn(self, text: str) -> None: ...


class Silent:
    """Tells nobody."""

    def begin(self, step: str) -> None:
        pass

    def done(self, step: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Cloud:
    """A cloud of the lab: its fake's admin endpoint, and the IPAM service that manages it."""

    kind: CloudKind
    admin: CloudAdmin
    ipam: ipam_pb2_grpc.IpamServiceAsyncStub


class Lab:
    """The parts of a running lab, and what one can do to it. Raises LabError when it does not come up."""

    state: LabState
    children: Children
    fabric: Fabric
    redis: RedisServer
    outside: SourceLog
    pods: Pods

    def __init__(self, options: LabOptions, progress: Progress | None = None) -> None:
        self.options = options
        self.nodes: dict[str, NodePlace] = {}
        self.clouds: dict[str, Cloud] = {}
        self._progress: Progress = progress or Silent()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            async with self._stack:
                await self._start()
                self._stack = self._stack.pop_all()
        except RedisServerError as err:
            raise LabError(str(err), "`make setup` installs what is missing") from err
        return self

    async def __aexit__(self, *error: object) -> None:
        with self._step("taking everything away"):
            await self._stack.aclose()
        for name in self.children.forced:
            self._progress.warn(f"{name} did not stop when asked to and was killed; its log (--keep-logs) shows where")

    async def _start(self) -> None:
        options = self.options
        enter = self._stack.enter_async_context
        self.state = self._stack.enter_context(
            LabState(options.name, options.root, keep=KEPT if options.keep_logs else ())
        )
        with self._step("fabric"):
            await self._start_fabric()
        with self._step("redis"):
            self.redis = RedisServer(self.state.folder / "redis")
            self._stack.callback(self.redis.stop)
            self.start_redis()
        self.children = await enter(Children(self.state))
        self._programs = Programs(
            options,
            self.state.folder,
            self._control.netns,
            self._control.address,
            self.redis.url,
            pins=self.state.pins(),
            cluster_cidrs=(*(kind.vpc_cidr for kind in chosen(options.cloud)), CONTROL_CIDR),
        )
        await together(*(self._start_cloud(kind) for kind in chosen(options.cloud)))
        kinds = [cloud.kind for cloud in self.clouds.values()]
        central = [self._programs.registry(), *map(self._programs.ipam, kinds), *map(self._programs.worker, kinds)]
        await together(
            self._reported("instances", self._launch_all()),
            *(self._reported(program.name, self.children.start(program)) for program in central),
        )
        self.pods = Pods(self.state)
        self._stack.callback(self.pods.close)
        programs = [self._programs.node(place) for place in self.nodes.values()]
        await together(*(self._reported(program.name, self.children.start(program)) for program in programs))
        self._write_context()

    async def _start_cloud(self, kind: CloudKind) -> None:
        enter = self._stack.enter_async_context
        admin = (Ec2Admin if kind.name == "aws" else CloudAdmin)("127.0.0.1", kind.port, self._control.netns)
        await enter(admin)
        await self._reported(kind.fake, self.children.start(self._programs.fake(kind, admin.answers)))
        channel = await enter(grpc.aio.insecure_channel(f"unix:{self._programs.sockets[kind.service]}"))
        cloud = self.clouds[kind.name] = Cloud(kind, admin, ipam_pb2_grpc.IpamServiceStub(channel))
        await enter(_background(self._follow(cloud)))

    async def _start_fabric(self) -> None:
        self.fabric = await self._stack.enter_async_context(Fabric(self.state.namespace_name("router")))
        self._control = Segment("control", self.state.namespace("control"), CONTROL_CIDR)
        outside = Segment("outside", self.state.namespace("outside"), OUTSIDE_CIDR)
        for segment in (self._control, outside):
            await self.fabric.attach_segment(segment)
        self.outside = await self._stack.enter_async_context(SourceLog(outside.netns, outside.address))

    async def _launch_all(self) -> None:
        for number, kind in zip(range(1, self.options.nodes + 1), itertools.cycle(chosen(self.options.cloud))):
            await self.launch(f"node-{number}", kind.name)

    async def launch(self, name: str, cloud: str = "") -> NodePlace:
        """Launches an instance and gives it a namespace; the node daemon is not started.

        :param cloud: at which; empty: the lab's first.
        """
        where = self.clouds[cloud or chosen(self.options.cloud)[0].name]
        kind = where.kind
        instance_id = await where.admin.launch(instance_type(self.options, kind), tags={"Name": name})
        place = NodePlace(name, instance_id, self.state.namespace(name), self.state.folder / "nodes" / name, kind)
        self.nodes[name] = place
        await self.fabric.add_instance(instance_id, place.namespace)
        # The daemon speaks from the primary address: it has to be there first.
        await self.fabric.wait_applied((await where.admin.state()).revision, kind.name)
        return place

    async def add_node(self, name: str, settings: Mapping[str, object] | None = None) -> NodePlace:
        """Launches an instance and starts its daemon, with settings over the lab's own."""
        place = await self.launch(name)
        await self.children.start(self._programs.node(place, settings or {}))
        self._write_context()
        return place

    async def remove_node(self, name: str) -> None:
        """Ends the daemon and terminates the instance, whose pods must be gone."""
        await self.children.stop(name)
        place = self.nodes.pop(name)
        await self.clouds[place.cloud.name].admin.terminate(place.instance_id)
        await self.fabric.remove_instance(place.instance_id)
        self.state.drop_namespace(place.namespace)
        self._write_context()

    def start_redis(self) -> None:
        """Starts Redis, empty. From the main thread, as it dies with the thread that starts it."""
        self.redis.start()
        self.state.process("redis", self.redis.pid)

    @property
    def redis_runs(self) -> bool:
        try:
            return start_time(self.redis.pid) is not None
        except RedisServerError:
            return False

    @property
    def central(self) -> tuple[str, ...]:
        """Names of the central processes."""
        kinds = [cloud.kind for cloud in self.clouds.values()]
        return ("registry", *(kind.service for kind in kinds), *(kind.worker for kind in kinds))

    @property
    def ec2(self) -> Ec2Admin:
        """The fake EC2 of a lab that has one."""
        admin = self.clouds["aws"].admin
        assert isinstance(admin, Ec2Admin)
        return admin

    @property
    def ipam(self) -> ipam_pb2_grpc.IpamServiceAsyncStub:
        """The IPAM service of a lab that has one."""
        (cloud,) = self.clouds.values()
        return cloud.ipam

    async def ports(self) -> list[Port]:
        """What is plugged at any of the clouds. Raises aiohttp.ClientError."""
        states = await asyncio.gather(*(cloud.admin.state() for cloud in self.clouds.values()))
        return [port for state in states for port in state.ports.values()]

    async def calls(self) -> dict[str, int]:
        """Calls that the clouds counted: total, mutating, throttled. Raises aiohttp.ClientError."""
        told = await asyncio.gather(*(cloud.admin.calls() for cloud in self.clouds.values()))
        return {key: sum(int(each.get(key, 0)) for each in told) for key in ("total", "mutating", "throttled")}

    async def stop_central(self) -> None:
        """Kills every central process: services, worker and Redis, which forgets everything."""
        await self.children.kill(*self.central)
        self.redis.kill()

    async def start_central(self) -> None:
        self.start_redis()
        await together(*(self.children.restart(name) for name in self.central))

    async def add_pods(self, count: int) -> list[Pod]:
        """Starts pods, spread evenly over the nodes."""
        names = list(self.nodes)
        return await together(*(self.add_pod(names[number % len(names)]) for number in range(count)))

    async def add_pod(self, node: str, *, timeout_s: float | None = None) -> Pod:
        """Starts a pod on the node. Raises CniError, with IPAM's explanation if it has one.

        :param timeout_s: how long "try again later" is obeyed; None: as the lab's options say.
        """
        patience_s = self.options.pod_timeout_s if timeout_s is None else timeout_s
        try:
            return await self.pods.start(node, self.plugin(node), timeout_s=patience_s)
        except CniError as err:
            raise CniError("\n     ".join([err.message, *await self.explain(node)]), err.code) from None

    async def explain(self, node: str) -> list[str]:
        """What IPAM finds of the node, one line each; empty while it is away."""
        try:
            ipam = self.clouds[self.nodes[node].cloud.name].ipam
            answer = await ipam.Explain(ipam_pb2.ExplainRequest(node=node), timeout=1.0)
        except grpc.aio.AioRpcError:
            return []
        return [f"{node}, {each.subject}: {each.message}" for each in answer.findings]

    async def datapath(self, node: str) -> datapath_pb2.GetDatapathStatusResponse:
        """What the programs of the node say of themselves. Raises grpc.aio.AioRpcError."""
        async with grpc.aio.insecure_channel(f"unix:{self.nodes[node].socket}") as channel:
            stub = datapath_pb2_grpc.DatapathServiceStub(channel)
            return await stub.GetStatus(datapath_pb2.GetDatapathStatusRequest(), timeout=5.0)

    def plugin(self, node: str) -> Plugin:
        return Plugin(self.options.plugin, self.nodes[node].cni_socket)

    async def pools(self, *, named: bool = True) -> Mapping[str, ipam_pb2.Pool]:
        """All pools as the IPAM services know them, by node. Raises grpc.aio.AioRpcError.

        :param named: with what a node's named pools hold added to its default one.
        """
        found: dict[str, ipam_pb2.Pool] = {}
        for cloud in self.clouds.values():
            token = ""
            while True:
                answer = await cloud.ipam.ListPools(ipam_pb2.ListPoolsRequest(page_token=token), timeout=5.0)
                for pool in answer.pools:
                    if not pool.node.pool:
                        found[pool.node.name] = _added(pool, found.get(pool.node.name))
                    elif named:
                        found[pool.node.name] = _added(found.get(pool.node.name) or ipam_pb2.Pool(), pool)
                token = answer.next_page_token
                if not token:
                    break
        return found

    async def settled(self, *, timeout_s: float = 60.0) -> Mapping[str, ipam_pb2.Pool]:
        """Returns the pools once IPAM knows every lease, and every node is between its marks with nothing under way.

        Raises LabError that says what is missing.
        """

        async def look() -> Mapping[str, ipam_pb2.Pool] | None:
            pools = await self.pools()
            return None if self._unsettled(pools) else pools

        async def explain() -> str:
            return "; ".join(self._unsettled(await self.pools()))

        found = await self.until(look, "every node between its marks", timeout_s=timeout_s, explain=explain)
        assert found is not None
        return found

    async def until(
        self,
        look: Callable[[], Awaitable[T | None]],
        what: str,
        *,
        timeout_s: float = 30.0,
        explain: Callable[[], Awaitable[str]] | None = None,
    ) -> T:
        """Asks `look` until it returns something true, and returns that. Services that are away are asked again.

        Raises LabError that names `what`, and what `explain` says, when it takes too long.
        """
        why = ""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        if found := await look():
                            return found
                    except (grpc.aio.AioRpcError, ClientError, OSError) as err:
                        why = f"; last error: {err}"
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            if explain is not None:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    why += f"; {await explain()}"
            raise LabError(
                f"waited {timeout_s:g} s for {what}{why}", "`plimsoll ipam explain NODE` tells why"
            ) from None

    def _unsettled(self, pools: Mapping[str, ipam_pb2.Pool]) -> list[str]:
        """What keeps each node from being settled."""
        pods = self.pods.by_node()
        found = []
        for name in self.nodes:
            pool = pools.get(name)
            if pool is None:
                found.append(f"{name}: unknown to {self.nodes[name].cloud.service}")
            elif not _between(pool) or pool.in_use != len(pods.get(name, ())):
                found.append(f"{name} with {len(pods.get(name, ()))} pods: {describe(pool)}")
        return found

    async def _follow(self, cloud: Cloud) -> None:
        """Brings every change of the cloud's state into the fabric."""
        revision = -1
        while True:
            try:
                state = await cloud.admin.state(after_revision=revision, wait_s=_LONG_POLL_S)
                await self.fabric.apply(state, cloud.kind.name)
                revision = state.revision
            except (ClientError, LabError, OSError, NetlinkError) as err:
                # The fake is away, or a namespace went while it was being plugged: look again.
                self._note(f"{type(err).__name__}: {err}")
                revision = -1
                await asyncio.sleep(_RETRY_S)

    def _note(self, text: str) -> None:
        with (self.state.folder / "logs" / "fabric.log").open("a") as log:
            log.write(f"{datetime.now(UTC).isoformat()} {text}\n")

    async def _reported(self, step: str, work: Awaitable[object]) -> None:
        with self._step(step):
            await work

    @contextlib.contextmanager
    def _step(self, step: str) -> Iterator[None]:
        self._progress.begin(step)
        yield
        self._progress.done(step)

    def _write_context(self) -> None:
        sockets = self._programs.sockets
        context = {
            "registry": f"unix:{sockets['registry']}",
            "ipam": {kind.service: f"unix:{sockets[kind.service]}" for kind in chosen(self.options.cloud)},
            "nodes": {name: f"unix:{place.socket}" for name, place in self.nodes.items()},
        }
        (self.state.folder / "context.toml").write_text(toml(context))


def describe(pool: ipam_pb2.Pool) -> str:
    """State of a pool in a few words."""
    words = [
        f"attached {pool.attached}, used {pool.in_use}, cooling {pool.cooling}",
        f"needed {pool.needed}, excess {pool.excess}",
        *([f"{pool.open_intents} open intents"] if pool.open_intents else []),
        *([] if pool.connected else ["not connected"]),
        *([pool.last_error] if pool.last_error else []),
    ]
    return ", ".join(words)


def _between(pool: ipam_pb2.Pool) -> bool:
    under_way = pool.needed or pool.excess or pool.open_intents or pool.cooling
    return pool.connected and pool.attached > 0 and not under_way


async def together(*work: Coroutine[Any, Any, T], limit: int = AT_ONCE) -> list[T]:
    """Results of all, at most `limit` at work at a time. The first error cancels the rest and is raised as it is."""
    turn = asyncio.Semaphore(limit)

    async def one(each: Coroutine[Any, Any, T]) -> T:
        async with turn:
            return await each

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(each)) for each in work]
    except BaseExceptionGroup as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    finally:
        for each in work:
            each.close()  # those that never had their turn
    return [task.result() for task in tasks]


@contextlib.asynccontextmanager
async def _background(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _added(pool: ipam_pb2.Pool, other: ipam_pb2.Pool | None) -> ipam_pb2.Pool:
    """`pool` with the addresses and interfaces of another pool of its node beside its own."""
    if other is not None:
        for name in ("attached", "in_use", "cooling", "needed", "excess", "pending_pods", "open_intents"):
            setattr(pool, name, getattr(pool, name) + getattr(other, name))
        pool.interfaces.extend(other.interfaces)
    return pool
