"""PUT of an interface, and of the model of a scale set's virtual machine: the whole resource is written, and what it
lacks is taken away.

A write is refused at once, or begins a long-running operation that ends later. Addresses of an interface are allocated
when its write begins; those of a scale set's virtual machine by the operation, which may fail for them.
https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lab.fake_azure.cloud import CONFIGURATIONS_A_MACHINE, CONFIGURATIONS_A_NIC, Cloud
from lab.fake_azure.errors import ApiError
from lab.fake_azure.records import IpConfiguration, LongOperation, Machine, Nic, PublicAddress

Document = Mapping[str, Any]
_FOREIGN_IMAGE = "/managed-by-azure/"


def put_nic(cloud: Cloud, nic: Nic, body: Document, if_match: str) -> LongOperation:
    """Raises ApiError; nothing has changed then."""
    _require_match(nic.etag, if_match)
    _require_idle(nic.state, nic.id)
    rows = body.get("properties", {}).get("ipConfigurations") or []
    _check_rows(rows, nic)
    if nic.machine_id:
        others = sum(len(each.configurations) for each in cloud.nics_at(nic.machine_id) if each.id != nic.id)
        _require_room(len(rows) + others, CONFIGURATIONS_A_MACHINE)
    wanted, fresh = _wanted(cloud, nic, rows)
    allocated: list[IpConfiguration] = []
    try:
        for each, address in fresh:
            taken = cloud.allocate(each.subnet_id, address)
            allocated.append(replace(each, address=taken, state="Updating"))
    except ApiError:
        for each in allocated:
            cloud.release(each)
        raise
    by_name = {each.name: each for each in (*wanted, *allocated)}
    ordered = tuple(by_name[row["name"]] for row in rows)
    leaving = [each for each in nic.configurations if each.name not in by_name]
    updating = replace(nic, configurations=ordered, state="Updating", etag=cloud.new_etag())
    updating = replace(updating, tags=dict(body.get("tags") or {}))
    cloud.put_nic(updating)
    operation = cloud.begin_operation()
    failure = cloud.failing.pop(0) if cloud.failing else None

    def end() -> None:
        for each in leaving:
            cloud.release(each)
        now = cloud.nics.current.get(nic.id)
        if now is None:
            return
        outcome = "Failed" if failure else "Succeeded"
        done = tuple(each if each.state == "Succeeded" else replace(each, state=outcome) for each in now.configurations)
        cloud.put_nic(replace(now, configurations=done, state=outcome, etag=cloud.new_etag()))
        cloud.end_operation(operation.id, failure)

    cloud.later(cloud.faults.attach_s if allocated else cloud.faults.detach_s, end)
    return cloud.operations.current[operation.id]


def put_machine(cloud: Cloud, machine: Machine, body: Document, if_match: str) -> LongOperation:
    """The model of a virtual machine of a uniform scale set. Raises ApiError; nothing has changed then."""
    _require_match(machine.etag, if_match)
    _require_idle(machine.state, machine.id)
    properties = body.get("properties", {})
    image = properties.get("storageProfile", {}).get("imageReference") or {}
    if str(image.get("id", "")).startswith(_FOREIGN_IMAGE):
        raise ApiError("LinkedAuthorizationFailed", "The client has no permission to the image of a foreign gallery.")
    models = properties.get("networkProfileConfiguration", {}).get("networkInterfaceConfigurations") or []
    nics = {each.name: each for each in cloud.nics_at(machine.id)}
    if {each.get("name") for each in models} != set(nics):
        raise ApiError("OperationNotAllowed", "Interfaces of a scale set's virtual machine come from its scale set.")
    written = {}
    for model in models:
        rows = model.get("properties", {}).get("ipConfigurations") or []
        _check_rows(rows, nics[model["name"]])
        written[model["name"]] = rows
    _require_room(sum(map(len, written.values())), CONFIGURATIONS_A_MACHINE)
    plans = {name: _wanted(cloud, nics[name], rows) for name, rows in written.items()}
    grows = any(fresh for _, fresh in plans.values())
    for name, rows in written.items():
        wanted, fresh = plans[name]
        begun = [each if each.state == "Succeeded" else replace(each, state="Updating") for each in wanted]
        by_name = {each.name: each for each in (*begun, *(replace(each, state="Updating") for each, _ in fresh))}
        ordered = tuple(_with_public(cloud, by_name[row["name"]], nics[name], row) for row in rows)
        nic = nics[name]
        for each in nic.configurations:
            if each.name not in by_name:
                cloud.release(each)
        cloud.put_nic(replace(nic, configurations=ordered, state="Updating", etag=cloud.new_etag()))
    user_data = str(properties.get("userData") or "")
    cloud.put_machine(replace(machine, state="Updating", etag=cloud.new_etag(), user_data=user_data))
    operation = cloud.begin_operation()
    failure = cloud.failing.pop(0) if cloud.failing else None

    def end() -> None:
        if machine.id in cloud.machines.current:
            _end_machine(cloud, machine.id, operation.id, failure)

    cloud.later(cloud.faults.attach_s if grows else cloud.faults.detach_s, end)
    return cloud.operations.current[operation.id]


def _end_machine(cloud: Cloud, machine_id: str, operation_id: str, failure: ApiError | None) -> None:
    for nic in cloud.nics_at(machine_id):
        done = []
        for each in nic.configurations:
            settled = each
            if each.state == "Updating":
                try:
                    if failure is not None:
                        raise failure
                    settled = replace(each, address=each.address or cloud.allocate(each.subnet_id), state="Succeeded")
                except ApiError as error:
                    failure = error
                    settled = replace(each, state="Failed")
            done.append(settled)
        state = "Failed" if any(each.state == "Failed" for each in done) else "Succeeded"
        cloud.put_nic(replace(nic, configurations=tuple(done), state=state, etag=cloud.new_etag()))
    machine = cloud.machines.current[machine_id]
    cloud.put_machine(replace(machine, state="Failed" if failure else "Succeeded", etag=cloud.new_etag()))
    cloud.end_operation(operation_id, failure)


def _wanted(
    cloud: Cloud, nic: Nic, rows: Sequence[Document]
) -> tuple[list[IpConfiguration], list[tuple[IpConfiguration, str]]]:
    """Configurations that stay, and those that need an address, with the one that is asked for. Raises ApiError."""
    known = {each.name: each for each in nic.configurations}
    stay: list[IpConfiguration] = []
    fresh: list[tuple[IpConfiguration, str]] = []
    for row in rows:
        properties = row.get("properties", {})
        subnet_id = str((properties.get("subnet") or {}).get("id", "")).lower()
        public_id = str((properties.get("publicIPAddress") or {}).get("id", "")).lower()
        if public_id:
            _require_public(cloud, public_id, nic, row["name"])
        before = known.get(row["name"])
        if before is not None and before.address:
            if subnet_id and subnet_id != before.subnet_id:
                raise ApiError("OperationNotAllowed", f"The subnet of configuration {row['name']} cannot be changed.")
            modelled = "publicIPAddressConfiguration" in properties
            stay.append(before if modelled else replace(before, public_address_id=public_id))
            continue
        if subnet_id not in cloud.spaces:
            raise ApiError("InvalidResourceReference", f"Resource {subnet_id or '(none)'} was not found.")
        if cloud.network_of(subnet_id).id != cloud.network_of(nic.primary.subnet_id).id:
            raise ApiError("SubnetsNotInSameVnet", "All configurations of an interface are in one virtual network.")
        static = properties.get("privateIPAllocationMethod") == "Static"
        address = str(properties.get("privateIPAddress") or "") if static else ""
        made = IpConfiguration(
            row["name"], subnet_id, "", static=static, public_address_id=public_id, app_groups=_app_groups(row)
        )
        fresh.append((made, address))
    return stay, fresh


def _require_public(cloud: Cloud, public_id: str, nic: Nic, name: str) -> None:
    if public_id not in cloud.public_addresses.current:
        raise ApiError("InvalidResourceReference", f"Resource {public_id} was not found.")
    for other in cloud.nics.current.values():
        for each in other.configurations:
            if each.public_address_id == public_id and (other.id, each.name) != (nic.id, name):
                raise ApiError("PublicIPAddressInUse", f"Resource {public_id} is used by {other.id}.")


def _check_rows(rows: Sequence[Document], nic: Nic) -> None:
    names = [each.get("name") for each in rows]
    if not all(names) or len(set(names)) < len(names):
        raise ApiError("DuplicateResourceName", f"Interface {nic.id} has configurations without a name of their own.")
    primaries = [each["name"] for each in rows if each.get("properties", {}).get("primary", len(rows) == 1)]
    if primaries != [nic.primary.name]:
        raise ApiError("OperationNotAllowed", f"Interface {nic.id} keeps its primary IP configuration.")
    if len({_app_groups(each) for each in rows}) > 1:
        raise ApiError("OperationNotAllowed", f"All of {nic.id} have the same application security groups.")
    _require_room(len(rows), CONFIGURATIONS_A_NIC)


def _app_groups(row: Document) -> tuple[str, ...]:
    told = row.get("properties", {}).get("applicationSecurityGroups") or ()
    return tuple(sorted(str(each["id"]).lower() for each in told))


def _require_room(count: int, limit: int) -> None:
    if count > limit:
        raise ApiError("IPConfigurationsLimitExceeded", f"{count} IP configurations exceed the limit of {limit}.")


def _require_match(etag: str, if_match: str) -> None:
    if if_match and if_match not in ("*", etag):
        raise ApiError("PreconditionFailed", "The condition specified using HTTP conditional header(s) is not met.")


def _require_idle(state: str, resource_id: str) -> None:
    if state == "Updating":
        raise ApiError(
            "AnotherOperationInProgress", f"Another operation on {resource_id} is in progress; retry after it ends.",
            retry_after_s=1,
        )  # fmt: skip


def _with_public(cloud: Cloud, configuration: IpConfiguration, nic: Nic, row: Document) -> IpConfiguration:
    """An address of the prefix that the model names; the scale set makes it. Raises ApiError."""
    asked = row.get("properties", {}).get("publicIPAddressConfiguration")
    if not asked or configuration.public_address_id:
        return configuration
    public_id = f"{nic.id}/ipconfigurations/{configuration.name}/publicipaddresses/{asked['name']}".lower()
    record = put_public_address(cloud, public_id, {"properties": asked.get("properties") or {}})
    return replace(configuration, public_address_id=record.id)


def put_public_address(cloud: Cloud, resource_id: str, body: Document) -> PublicAddress:
    """Creates an address out of a prefix, or tells the one there is. Raises ApiError."""
    known = cloud.public_addresses.current.get(resource_id)
    if known is not None:
        return known
    prefix_id = str((body.get("properties", {}).get("publicIPPrefix") or {}).get("id", "")).lower()
    prefix = cloud.find(cloud.prefixes, prefix_id)
    taken = {each.address for each in cloud.public_addresses.current.values()}
    free = [each for each in cloud.members(prefix) if each not in taken]
    if not free:
        raise ApiError("PublicIPPrefixOutOfIpAddressesForVMScaleSet", f"{prefix_id} has no free address left.")
    record = PublicAddress(
        cloud.new_number(), resource_id, resource_id.rpartition("/")[2], free[0], prefix.id,
        dict(body.get("tags") or {}),
    )  # fmt: skip
    cloud.public_addresses.put(record)
    cloud.changed()
    return record
