"""Results of ADD in the words of each version of the CNI specification, and their comparison for CHECK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from datapath.model import HOST_MAC, POD_GATEWAY, POD_GATEWAY6
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
    addresses, routes = [], []
    for one in endpoint.addresses:
        family, prefix, gateway = ("6", 128, POD_GATEWAY6) if ":" in one else ("4", 32, POD_GATEWAY)
        address: dict[str, Any] = {"interface": ours, "address": f"{one}/{prefix}", "gateway": gateway}
        if version < "1.0.0":
            address["version"] = family
        addresses.append(address)
        routes.append({"dst": "::/0" if family == "6" else "0.0.0.0/0", "gw": gateway})
    body = {
        **before,
        "cniVersion": version,
        "interfaces": [*interfaces, host, pod],
        "ips": [*(before.get("ips") or []), *addresses],
        "routes": [*(before.get("routes") or []), *routes],
        "dns": before.get("dns") or {},
    }
    return msgspec.json.encode(body) + b"\n"


def compare(attached: Attached, previous: Mapping[str, Any]) -> None:
    """Raises CniError if `previous` does not tell of this pod's interface and address."""
    endpoint = attached.endpoint
    interfaces = [one for one in previous.get("interfaces") or [] if isinstance(one, dict)]
    if not any(one.get("name") == endpoint.device and one.get("mac") == endpoint.mac for one in interfaces):
        raise CniError(CHECK_FAILED, f"prevResult does not name {endpoint.device} with MAC {endpoint.mac}")
    entries = [one for one in previous.get("ips") or [] if isinstance(one, dict)]
    told = {str(one.get("address", "")).partition("/")[0] for one in entries}
    for address in endpoint.addresses:
        if address not in told:
            raise CniError(CHECK_FAILED, f"prevResult does not hold the address {address}")
