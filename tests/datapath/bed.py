"""A small VPC of network namespaces for tests and benches, and node daemons in it.

      pod ns        node ns                    router ns (the VPC)
    ┌────────┐   ┌───────────────┐          ┌──────────────────────────────────┐
    │ eth0   ├───┤ plm…    ens0  ├──────────┤ port: gateway, proxy ARP         │
    └────────┘   │         ens1  ├──────────┤ port: /32 routes of its addresses│
                 └───────────────┘          └──────────────────────────────────┘

The router delivers an address to the port of its interface only, and strict reverse-path filtering drops a packet
that comes in by any other port.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from datapath.loader import bpffs
from ipam.journal import Journal
from ipam.model import AddressState, PoolInterface

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "build" / "cni" / "plimsoll"
MTU_BYTES = 9001


@dataclass(slots=True)
class Eni:
    """A cloud interface: its own address, and those of pods."""

    index: int
    primary: str
    addresses: list[str]
    gateway: str = "10.0.0.1"
    mac: str = field(default_factory=lambda: "02:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(5)))
    id: str = field(default_factory=lambda: f"eni-{secrets.token_hex(4)}")

    def pool(self) -> PoolInterface:
        return PoolInterface(
            id=self.id, mac=self.mac, device_index=self.index, subnet_id="subnet-1", subnet_cidr="10.0.0.0/24",
            gateway=self.gateway, primary_address=self.primary, vpc_id="vpc-1", zone="a", vpc_cidrs=("10.0.0.0/16",),
            security_group_ids=("sg-1",), addresses=dict.fromkeys(self.addresses, AddressState.AVAILABLE),
        )  # fmt: skip


@dataclass(slots=True)
class Answer:
    code: int
    body: dict[str, Any]
    seconds: float


def build_plugin() -> Path:
    """The plugin, built if it is not up to date."""
    subprocess.run(["make", "-s", "-C", str(ROOT / "services/node/cni")], check=True)
    return PLUGIN


def build_programs() -> None:
    """The eBPF objects, built if they are not up to date."""
    subprocess.run(["make", "-s", "-C", str(ROOT / "bpf")], check=True)


class Bed:
    """Namespaces with a tag of their own; all are gone when the block is left."""

    def __init__(self) -> None:
        self.tag = f"pl{secrets.token_hex(3)}"
        self.folder = Path(tempfile.mkdtemp(prefix="plimsoll-bed-", dir="/tmp"))
        self.namespaces: list[str] = []
        self.nodes: list[Node] = []
        self.ports = 0

    def __enter__(self) -> Bed:
        build_plugin()
        build_programs()
        # `ip netns exec` gives each command a /sys of its own: pins have to lie elsewhere.
        bpffs.mount(self.folder / "bpf")
        self.router = self.namespace("router")
        for name in ("ip_forward", "conf/all/rp_filter", "conf/default/rp_filter", "conf/default/proxy_arp"):
            self.sysctl(self.router, name, "1")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.kill()
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)
        bpffs.unmount(self.folder / "bpf")
        shutil.rmtree(self.folder, ignore_errors=True)

    def namespace(self, name: str) -> str:
        full = f"{self.tag}-{name}"
        subprocess.run(["ip", "netns", "add", full], check=True)
        self.namespaces.append(full)
        self.ip(full, "link set lo up")
        return full

    def forget(self, full: str) -> None:
        subprocess.run(["ip", "netns", "del", full], check=True)
        self.namespaces.remove(full)

    def ip(self, namespace: str, *commands: str) -> None:
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(commands), text=True, check=True)

    def show(self, namespace: str, *arguments: str) -> list[dict[str, Any]]:
        """What `ip -json` says, without empty entries."""
        done = subprocess.run(
            ["ip", "-n", namespace, "-d", "-j", *arguments], capture_output=True, text=True, check=True
        )
        return [one for one in json.loads(done.stdout or "[]") if one]

    def sysctl(self, namespace: str, name: str, value: str) -> None:
        command = ["ip", "netns", "exec", namespace, "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}"]
        subprocess.run(command, check=True)

    def ping(self, namespace: str, target: str, *, count: int = 1, options: tuple[str, ...] = ()) -> bool:
        command = ["ip", "netns", "exec", namespace, "ping", "-n", "-q", "-c", str(count), "-i", "0.05", "-W", "1"]
        return subprocess.run([*command, *options, target], capture_output=True, check=False).returncode == 0

    def node(self, name: str, *enis: Eni, **settings: object) -> Node:
        """A node with its interfaces plugged into the router, as a cloud boots it: the first one configured."""
        node = Node(self, name, self.namespace(name), list(enis), settings)
        self.nodes.append(node)
        for eni in enis:
            self.plug(node, eni)
        return node

    def plug(self, node: Node, eni: Eni) -> None:
        self.ports += 1
        port, device = f"port{self.ports}", f"ens{eni.index}"
        self.ip(
            self.router,
            f"link add {port} mtu {MTU_BYTES} type veth peer name {device} netns {node.namespace} mtu {MTU_BYTES} "
            f"address {eni.mac}",
            f"addr add {eni.gateway}/32 dev {port}",
            f"link set {port} up",
            *(f"route add {address}/32 dev {port}" for address in [eni.primary, *eni.addresses]),
            *(
                f"neigh add {address} lladdr {eni.mac} dev {port} nud permanent"
                for address in [eni.primary, *eni.addresses]
            ),
        )
        if eni.index == 0:
            self.ip(
                node.namespace,
                f"addr add {eni.primary}/24 dev {device}",
                f"link set {device} up",
                f"route add default via {eni.gateway}",
            )


class Node:
    """One node: its namespace, its daemon, its plugin."""

    def __init__(self, bed: Bed, name: str, namespace: str, enis: list[Eni], settings: dict[str, object]) -> None:
        self.bed, self.name, self.namespace, self.enis = bed, name, namespace, enis
        self.folder = bed.folder / name
        self.folder.mkdir()
        self.cni_socket = self.folder / "cni.sock"
        self.socket = self.folder / "node.sock"
        self.log = self.folder / "log"
        self.settings: dict[str, object] = {
            "name": name, "instance_id": f"i-{name}", "state_dir": str(self.folder), "log_format": "json",
            "cni_socket": str(self.cni_socket), "socket": str(self.socket),
            "datapath.bpf_dir": str(bed.folder / "bpf" / name), **settings,
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def fill_journal(self) -> None:
        """As if IPAM had told the pool once, and was gone since."""
        with Journal(self.folder / "node.db") as journal:
            journal.pool(upserts=[eni.pool() for eni in self.enis])

    def start(self, *, wait_s: float = 30.0) -> None:
        config = self.folder / "node.toml"
        config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in self.settings.items()))
        command = [
            "ip",
            "netns",
            "exec",
            self.namespace,
            sys.executable,
            "-m",
            "services.node",
            "--config",
            str(config),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + wait_s
        while not self.cni_socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """A clean stop."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
            self.process = None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None
            self.cni_socket.unlink(missing_ok=True)

    def config(self, version: str = "1.1.0", **more: object) -> bytes:
        body = {"cniVersion": version, "name": "plimsoll", "type": "plimsoll", "socket": str(self.cni_socket), **more}
        return json.dumps(body).encode()

    def cni(
        self, command: str, container: str = "", netns: str = "", *, interface: str = "eth0", args: str = "",
        config: bytes | None = None,
    ) -> Answer:  # fmt: skip
        """Runs the plugin as a runtime does. `netns` is a namespace's name, a path, or empty."""
        path = netns if not netns or netns.startswith("/") else f"/run/netns/{netns}"
        environment = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": interface, "CNI_ARGS": args,
            "CNI_NETNS": path, "CNI_PATH": str(PLUGIN.parent),
        }  # fmt: skip
        began = time.perf_counter()
        done = subprocess.run(
            [str(PLUGIN)], input=self.config() if config is None else config, env=environment, capture_output=True,
            check=False, timeout=90,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        return Answer(done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, seconds)

    def add(self, container: str) -> tuple[str, str]:
        """Starts a pod with a namespace of its own. Returns the namespace and its address."""
        namespace = self.bed.namespace(container)
        answer = self.cni("ADD", container, namespace, args=f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={container}")
        if answer.code:
            raise RuntimeError(f"ADD {container}: {answer.body}\n{self.log.read_text()}")
        return namespace, answer.body["ips"][0]["address"].partition("/")[0]


def children_left(tag: str) -> list[str]:
    """Namespaces with this tag that are still there."""
    return [name for name in os.listdir("/run/netns") if name.startswith(tag)]
