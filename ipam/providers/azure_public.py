"""Static public addresses out of public IP prefixes.

A prefix is a range of the subscription's own; an address of it exists once a resource for it is made. So a prefix that
has room left stands for one address more, and taking that makes it.
https://learn.microsoft.com/azure/virtual-network/ip-services/public-ip-address-prefix
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ipam.errors import Conflict, Gone, Rejected
from ipam.model import PublicAddress
from ipam.providers import azure_answers as answers
from ipam.providers import azure_ids as ids
from ipam.providers.azure_client import AzureClient


class PublicAddresses:
    """Those of IPv4 in one location: interfaces take no others."""

    def __init__(self, client: AzureClient, region: str) -> None:
        self._client = client
        self._region = region

    def listed(self, tags: Mapping[str, str]) -> Sequence[PublicAddress]:
        """Those that have all tags themselves, or whose prefix has; then a place for each prefix with room left."""
        prefixes = {
            str(each["id"]).lower(): each
            for page in self._client.public_prefixes()
            for each in page
            if _has(each, tags) and self._fits(each)
        }
        found = []
        for page in self._client.public_addresses():
            for each in page:
                prefix_id = answers.low_id(answers.properties(each).get("publicIPPrefix"))
                if self._fits(each) and (prefix_id in prefixes or _has(each, tags)):
                    found.append(answers.public_address(each))
        for prefix_id, each in prefixes.items():
            told = answers.properties(each)
            taken = len(told.get("publicIPAddresses") or ())
            # All addresses of a prefix that a gateway or a load balancer has are theirs.
            lent = told.get("natGateway") or told.get("loadBalancerFrontendIpConfiguration")
            if not lent and taken < 1 << (32 - int(told.get("prefixLength") or 32)):
                found.append(PublicAddress(prefix_id, "", tags=answers.tags(each)))
        return found

    def _fits(self, document: answers.Document) -> bool:
        version = answers.properties(document).get("publicIPAddressVersion") or "IPv4"
        return version == "IPv4" and answers.is_in(document, self._region)

    def of_prefix(self, public_address_id: str) -> dict[str, Any]:
        """What the model of a uniform scale set's machine says of an address. Raises Rejected for a single one."""
        _, kind, _ = ids.public(public_address_id)
        if kind != "publicipprefixes":
            raise Rejected(
                f"{public_address_id} is a single address", code="NotSupported", field="public_address_tags",
                remedy="give tags of a public IP prefix: interfaces of a uniform scale set take no others",
            )  # fmt: skip
        properties = {"publicIPPrefix": {"id": public_address_id}}
        return {"publicIPAddressConfiguration": {"name": "plimsoll", "properties": properties}}

    def taken(self, public_address_id: str, nic: ids.Resource) -> dict[str, Any]:
        """What the interface says of the address. Of a prefix, one is made in its zones, named after the interface, so
        that it is made once."""
        group, kind, _ = ids.public(public_address_id)
        if kind == "publicipaddresses":
            return {"publicIPAddress": {"id": public_address_id.lower()}}
        prefixes = (each for page in self._client.public_prefixes() for each in page)
        prefix = next((each for each in prefixes if str(each["id"]).lower() == public_address_id.lower()), None)
        if prefix is None:
            raise Gone(
                f"there is no public IP prefix {public_address_id}", code="ResourceNotFound", operation="associate",
                field="public_address_tags", remedy="look for prefixes with the tags again",
            )  # fmt: skip
        made = self._client.put_public_address(
            group,
            _name(nic),
            {
                "location": prefix["location"],
                **({"zones": prefix["zones"]} if prefix.get("zones") else {}),
                "sku": {"name": "Standard"},
                "tags": answers.tags(prefix),
                "properties": {
                    "publicIPAllocationMethod": "Static",
                    "publicIPAddressVersion": "IPv4",
                    "publicIPPrefix": {"id": prefix["id"]},
                },
            },
        )
        return {"publicIPAddress": {"id": str(made["id"]).lower()}}


def assign_public(held: list[dict[str, Any]], interface_id: str, wanted: Mapping[str, Any]) -> bool:
    """Gives the primary configuration its public address; False: it has it. Raises Conflict, if it has another."""
    primary = answers.primary(held)
    for name, value in wanted.items():
        now = answers.properties(primary).get(name)
        if now is None:
            primary["properties"][name] = value
            return True
        same = answers.low_id(now) == answers.low_id(value) if name == "publicIPAddress" else True
        if not same:
            raise Conflict(
                f"{interface_id} has the public address {answers.low_id(now)}", code="PublicIPAddressInUse",
                operation="associate", remedy="take that one away first",
            )  # fmt: skip
    return False


def _name(nic: ids.Resource) -> str:
    """Interfaces of several resource groups may have the same name; 80 characters are allowed."""
    return f"plimsoll-{nic.name[:50]}-{hashlib.sha256(nic.id.encode()).hexdigest()[:12]}"


def _has(document: answers.Document, tags: Mapping[str, str]) -> bool:
    own = answers.tags(document)
    return all(own.get(key) == value for key, value in tags.items())
