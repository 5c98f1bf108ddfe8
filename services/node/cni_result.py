"""Results of ADD in the words of each version of the CNI specification, and their comparison for CHECK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from datapath.model import HOST_MAC, POD_GATEWAY
from services.node.cni_request import CHECK_FAILED, CniError
from services.node.pods import Attached


def result(attached: Attached, version: str, previous: Mapping[str, Any] | None = None) -> bytes:
    """The result of an ADD, behind what earlier plugins of a chain have brought."""
    endpoint = attached.endpoint
    before = previous or {}
    interfaces = list(before.get("interfaces") or [])
    ours = len(interfaces) + 1
    host: dict[str, Any] = {"name": endpoint.host_device, "mac": HOST_MAC}
    pod: dict[str, Any] = {"name": endpoint.device, "mac": endpoint.mac, "sandbox": endpoint.netns}
    if version == "1.1.0" and endpoint.mtu:
        host["mtu"] = pod["mtu"] = endpoint.mtu
    address: dict[str, Any] = {"interface": ours, "address": f"{endpoint.address}/32", "gateway": POD_GATEWAY}
    if version < "1.0.0":
        address["version"] = "4"
    body = {
        **before,
        "cniVersion": version,
        "interfaces": [*interfaces, host, pod],
        "ips": [*(before.get("ips") or []), address],
        "routes": [*(before.get("routes") or []), {"dst": "0.0.0.0/0", "gw": POD_GATEWAY}],
        "dns": before.get("dns") or {},
    }
    return msgspec.json.encode(body) + b"\n"


def compare(attached: Attached, previous: Mapping[str, Any]) -> None:
    """Raises CniError if `previous` does not tell of this pod's interface and address."""
    endpoint = attached.endpoint
    interfaces = [one for one in previous.get("interfaces") or [] if isinstance(one, dict)]
    if not any(one.get("name") == endpoint.device and one.get("mac") == endpoint.mac for one in interfaces):
        raise CniError(CHECK_FAILED, f"prevResult does not name {endpoint.device} with MAC {endpoint.mac}")
    addresses = [one for one in previous.get("ips") or [] if isinstance(one, dict)]
    if not any(str(one.get("address", "")).partition("/")[0] == endpoint.address for one in addresses):
        raise CniError(CHECK_FAILED, f"prevResult does not hold the address {endpoint.address}")
