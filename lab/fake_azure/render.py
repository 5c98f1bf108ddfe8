"""Records as ARM's JSON. Ids have the case that ARM gives them, which differs between its services."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from lab.fake_azure.cloud import Cloud, sizes
from lab.fake_azure.records import (
    IpConfiguration,
    Machine,
    Nic,
    PublicAddress,
    PublicPrefix,
    ScaleSet,
    SecurityGroup,
    VirtualNetwork,
)

Document = dict[str, Any]
_CASES: Final = (
    "resourceGroups", "Microsoft.Network", "Microsoft.Compute", "networkInterfaces", "virtualNetworks",
    "networkSecurityGroups", "virtualMachines", "virtualMachineScaleSets", "publicIPAddresses", "publicIPPrefixes",
    "ipConfigurations",
)  # fmt: skip
_SEGMENTS: Final = {each.lower(): each for each in _CASES}


def cased(resource_id: str, *, shout: bool = False) -> str:
    """An id as ARM writes it. Compute's listings have the resource group in capitals (`shout`)."""
    parts = [_SEGMENTS.get(part, part) for part in resource_id.split("/")]
    if shout and len(parts) > 4:
        parts[4] = parts[4].upper()
    return "/".join(parts)


def network(cloud: Cloud, record: VirtualNetwork) -> Document:
    return {
        "id": cased(record.id),
        "name": record.name,
        "type": "Microsoft.Network/virtualNetworks",
        "location": cloud.region,
        "tags": dict(record.tags),
        "properties": {
            "provisioningState": "Succeeded",
            "addressSpace": {"addressPrefixes": [record.cidr]},
            "subnets": [
                {
                    "id": cased(each.id),
                    "name": each.name,
                    "properties": {"addressPrefix": each.cidr, "provisioningState": "Succeeded"},
                }
                for each in record.subnets
            ],
        },
    }


def usages(cloud: Cloud, record: VirtualNetwork) -> Document:
    """https://learn.microsoft.com/rest/api/virtualnetwork/virtual-networks/list-usage"""
    rows = []
    for each in record.subnets:
        space = cloud.spaces[each.id]
        limit = space.network.num_addresses - 5
        name = {"value": "SubnetSpace", "localizedValue": "Subnet size and usage"}
        rows.append(
            {
                "id": cased(each.id),
                "name": name,
                "unit": "Count",
                "limit": float(limit),
                "currentValue": float(limit - space.free),
            }
        )
    return {"value": rows}


def security_group(cloud: Cloud, record: SecurityGroup) -> Document:
    return {
        "id": cased(record.id),
        "name": record.name,
        "location": cloud.region,
        "tags": dict(record.tags),
        "properties": {"provisioningState": "Succeeded", "securityRules": []},
    }


def public_prefix(cloud: Cloud, record: PublicPrefix) -> Document:
    taken = [each for each in cloud.public_addresses.current.values() if each.prefix_id == record.id]
    return {
        "id": cased(record.id),
        "name": record.name,
        "location": cloud.region,
        "tags": dict(record.tags),
        "sku": {"name": "Standard"},
        "properties": {
            "ipPrefix": record.cidr,
            "publicIPAddressVersion": "IPv6" if ":" in record.cidr else "IPv4",
            "prefixLength": int(record.cidr.partition("/")[2]),
            "publicIPAddresses": [{"id": cased(each.id)} for each in taken],
            "provisioningState": "Succeeded",
        },
    }


def public_address(cloud: Cloud, record: PublicAddress) -> Document:
    holder = next(
        (
            f"{nic.id}/ipconfigurations/{each.name}"
            for nic in cloud.nics.current.values()
            for each in nic.configurations
            if each.public_address_id == record.id
        ),
        "",
    )
    properties: Document = {
        "ipAddress": record.address,
        "publicIPAddressVersion": "IPv4",
        "publicIPAllocationMethod": "Static",
        "provisioningState": "Succeeded",
    }
    if record.prefix_id:
        properties["publicIPPrefix"] = {"id": cased(record.prefix_id)}
    if holder:
        properties["ipConfiguration"] = {"id": cased(holder)}
    return {
        "id": cased(record.id),
        "name": record.name,
        "location": cloud.region,
        "tags": dict(record.tags),
        "sku": {"name": "Standard"},
        "properties": properties,
    }


def nic(cloud: Cloud, record: Nic) -> Document:
    properties: Document = {
        "provisioningState": record.state,
        "ipConfigurations": [_configuration(record, each) for each in record.configurations],
        "enableIPForwarding": True,
    }
    if record.mac:
        properties["macAddress"] = record.mac.replace(":", "-").upper()
    if record.machine_id:
        properties["primary"] = record.device == 0
        properties["virtualMachine"] = {"id": cased(record.machine_id)}
    if record.group_id:
        properties["networkSecurityGroup"] = {"id": cased(record.group_id)}
    return {
        "id": cased(record.id),
        "name": record.name,
        "type": "Microsoft.Network/networkInterfaces",
        "etag": record.etag,
        "location": cloud.region,
        "tags": dict(record.tags),
        "properties": properties,
    }


def _configuration(record: Nic, each: IpConfiguration) -> Document:
    properties: Document = {
        "primary": each.primary,
        # While a write of the interface is under way, all its configurations say so.
        "provisioningState": record.state if record.state == "Updating" else each.state,
        "privateIPAddress": each.address,
        "privateIPAddressVersion": "IPv4",
        "privateIPAllocationMethod": "Static" if each.static else "Dynamic",
        "subnet": {"id": cased(each.subnet_id)},
    }
    if not each.address:
        del properties["privateIPAddress"]
    if each.app_groups:
        properties["applicationSecurityGroups"] = [{"id": cased(group)} for group in each.app_groups]
    if each.public_address_id:
        properties["publicIPAddress"] = {"id": cased(each.public_address_id)}
    configuration_id = f"{cased(record.id)}/ipConfigurations/{each.name}"
    return {"id": configuration_id, "name": each.name, "etag": record.etag, "properties": properties}


def machine(cloud: Cloud, record: Machine, *, shout: bool = False, user_data: bool = False) -> Document:
    nics = cloud.nics_at(record.id)
    properties: Document = {
        "vmId": record.id.rpartition("/")[2],
        "provisioningState": record.state,
        "hardwareProfile": {"vmSize": record.size},
        "storageProfile": {"imageReference": {"id": "/managed-by-azure/images/debian"}, "osDisk": {"name": "os"}},
        "networkProfile": {
            "networkInterfaces": [{"id": cased(each.id), "properties": {"primary": each.device == 0}} for each in nics]
        },
    }
    document: Document = {
        "id": cased(record.id, shout=shout),
        "name": record.name,
        "etag": record.etag,
        "location": cloud.region,
        "tags": dict(record.tags),
        "properties": properties,
    }
    if record.zone:
        document["zones"] = [record.zone]
    if record.scale_set_id and not record.uniform:
        properties["virtualMachineScaleSet"] = {"id": cased(record.scale_set_id)}
    if record.uniform:
        document["instanceId"] = record.id.rpartition("/")[2]
        document["sku"] = {"name": record.size, "tier": "Standard"}
        properties["networkProfileConfiguration"] = {
            "networkInterfaceConfigurations": [_model(cloud, each, unsaid=record.unsaid) for each in nics]
        }
    if user_data and record.user_data:
        properties["userData"] = record.user_data
    return document


def _model(cloud: Cloud, record: Nic, *, unsaid: bool) -> Document:
    """An interface as the model of a scale set's virtual machine has it: what is wanted, without addresses."""
    properties: Document = {
        "primary": record.device == 0,
        "enableIPForwarding": True,
        "ipConfigurations": [
            {
                "name": each.name,
                "properties": {
                    "primary": each.primary,
                    "privateIPAddressVersion": "IPv4",
                    "subnet": {"id": cased(each.subnet_id)},
                },
            }
            for each in record.configurations
        ],
    }
    if unsaid and len(record.configurations) == 1:
        del properties["ipConfigurations"][0]["properties"]["primary"]
    for each, row in zip(record.configurations, properties["ipConfigurations"], strict=True):
        if each.app_groups:
            row["properties"]["applicationSecurityGroups"] = [{"id": cased(group)} for group in each.app_groups]
        if each.public_address_id:
            prefix_id = cloud.public_addresses.current[each.public_address_id].prefix_id
            name = each.public_address_id.rpartition("/")[2]
            told = {"name": name, "properties": {"publicIPPrefix": {"id": cased(prefix_id)}}}
            row["properties"]["publicIPAddressConfiguration"] = told
    if record.group_id:
        properties["networkSecurityGroup"] = {"id": cased(record.group_id)}
    return {"name": record.name, "properties": properties}


def scale_set(cloud: Cloud, record: ScaleSet) -> Document:
    return {
        "id": cased(record.id, shout=True),
        "name": record.name,
        "location": cloud.region,
        "tags": dict(record.tags),
        "properties": {
            "provisioningState": "Succeeded",
            "orchestrationMode": "Uniform" if record.uniform else "Flexible",
        },
    }


def skus(cloud: Cloud) -> Document:
    def row(name: str, interfaces: int) -> Document:
        capabilities = {"MaxNetworkInterfaces": interfaces, "AcceleratedNetworkingEnabled": True}
        return {
            "resourceType": "virtualMachines",
            "name": name,
            "locations": [cloud.region],
            "capabilities": [{"name": key, "value": str(value)} for key, value in capabilities.items()],
        }

    disk = {"resourceType": "disks", "name": "Premium_LRS", "locations": [cloud.region]}
    return {"value": [disk, *(row(*each) for each in sizes().items())]}


def rows(records: Iterable[Any], render: Callable[[Any], Document]) -> list[Document]:
    return [render(each) for each in records]
