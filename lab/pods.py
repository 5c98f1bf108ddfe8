"""Pods, as a container runtime makes them: a namespace each, handed to the CNI plugin."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from lab import netns
from lab.probe import Pinger
from lab.state import LabError, LabState

TRY_AGAIN_LATER: Final = 11
_IFNAME: Final = "eth0"
_RETRY_S: Final = 0.2
_GIVE_BACK_S: Final = 15.0
_PLUGIN_TIMEOUT_S: Final = 30.0


class CniError(LabError):
    """The plugin answered with an error. `code` is CNI's; 11 means that trying again later may help."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, "`plimsoll ipam explain NODE` tells why")
        self.code = code


@dataclass(frozen=True, slots=True)
class Plugin:
    """The plugin's binary and the socket of the node daemon to which it relays."""

    binary: Path
    socket: Path

    async def call(
        self, command: str, container_id: str, namespace: str, pod: str, more: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Runs the plugin as a runtime does and returns its result; {} when it has none. Raises CniError.

        :param more: fields of the network configuration beside the usual ones.
        """
        config = {
            **(more or {}),
            "cniVersion": "1.1.0",
            "name": "plimsoll",
            "type": "plimsoll",
            "socket": str(self.socket),
        }
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": str(netns.path_of(namespace)),
            "CNI_IFNAME": _IFNAME,
            "CNI_PATH": str(self.binary.parent),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME={pod}",
        }
        try:
            process = await asyncio.create_subprocess_exec(
                str(self.binary), stdin=-1, stdout=-1, stderr=-1, env=environment
            )
        except FileNotFoundError:
            raise LabError(f"the CNI plugin {self.binary} is not built", "make cni") from None
        try:
            async with asyncio.timeout(_PLUGIN_TIMEOUT_S):
                output, errors = await process.communicate(json.dumps(config).encode())
        except TimeoutError:
            process.kill()
            await process.wait()
            raise CniError(f"{command} of {pod} did not end in {_PLUGIN_TIMEOUT_S:g} s", TRY_AGAIN_LATER) from None
        answer: dict[str, Any] = _read_json(output)
        if process.returncode != 0:
            words = answer.get("msg") or errors.decode(errors="replace").strip() or output.decode(errors="replace")
            details = f" ({answer['details']})" if answer.get("details") else ""
            raise CniError(f"{command} of {pod}: {words}{details}", int(answer.get("code", 999)))
        return answer


class Pod:
    """A pod on a node. `address` is set once it has started."""

    def __init__(self, name: str, node: str, namespace: str, plugin: Plugin) -> None:
        self.name = name
        self.node = node
        self.namespace = namespace
        self.container_id = f"{name}-{namespace.encode().hex()[-24:]}"
        self.address = ""
        self._plugin = plugin
        self._result: dict[str, Any] = {}

    async def start(self, *, timeout_s: float = 30.0) -> Self:
        """ADD, again while the plugin says "try again later", as runtimes do. Raises CniError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                result = await self._call("ADD")
                break
            except CniError as err:
                if err.code != TRY_AGAIN_LATER or loop.time() > deadline:
                    raise
                await asyncio.sleep(_RETRY_S)
        self._result = result
        self.address = result["ips"][0]["address"].partition("/")[0]
        return self

    async def stop(self, *, timeout_s: float = 0.0) -> None:
        """DEL, repeated for `timeout_s` while it fails. Raises CniError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                await self._call("DEL")
                break
            except CniError:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(_RETRY_S)
        self.address = ""

    async def check(self) -> None:
        """CHECK: raises CniError unless all is as ADD left it."""
        await self._call("CHECK", {"prevResult": self._result})

    async def _call(self, command: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self._plugin.call(command, self.container_id, self.namespace, self.name, more)


class Pods:
    """All pods of a lab, each with a pinger."""

    def __init__(self, state: LabState) -> None:
        self._state = state
        self._numbers = itertools.count(1)
        self.running: dict[str, Pod] = {}
        self._pingers: dict[str, Pinger] = {}

    async def start(self, node: str, plugin: Plugin, *, timeout_s: float = 30.0) -> Pod:
        """Starts a pod on the node. Raises CniError, leaving nothing behind."""
        name = f"pod-{next(self._numbers)}"
        pod = Pod(name, node, self._state.namespace(name), plugin)
        try:
            await pod.start(timeout_s=timeout_s)
            self._check_single(pod)
        except CniError:
            # What half an ADD left is given back by a DEL, which a runtime repeats until it succeeds.
            with contextlib.suppress(CniError):
                await pod.stop(timeout_s=_GIVE_BACK_S)
            self._state.drop_namespace(pod.namespace)
            raise
        self.running[name] = pod
        self._pingers[name] = Pinger(pod.namespace).__enter__()
        return pod

    def _check_single(self, pod: Pod) -> None:
        """What must never happen is looked for at every start, not only at the end."""
        for other in self.running.values():
            if other.address == pod.address:
                raise LabError(f"{pod.address} was leased to {pod.name} while {other.name} ({other.node}) holds it")

    async def stop(self, pod: Pod) -> None:
        """Ends the pod as a runtime does: DEL, then its namespace."""
        await pod.stop()
        self._forget(pod)

    def close(self) -> None:
        """Drops all pods without telling the node daemons."""
        for pod in list(self.running.values()):
            self._forget(pod)

    def pinger(self, pod: Pod) -> Pinger:
        return self._pingers[pod.name]

    def by_node(self) -> Mapping[str, list[Pod]]:
        found: dict[str, list[Pod]] = {}
        for pod in self.running.values():
            found.setdefault(pod.node, []).append(pod)
        return found

    def _forget(self, pod: Pod) -> None:
        self._pingers.pop(pod.name).__exit__()
        del self.running[pod.name]
        self._state.drop_namespace(pod.namespace)


def _read_json(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
