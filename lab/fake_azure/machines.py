"""Virtual machines come and go: single ones, of a flexible scale set, and of a uniform one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, get_args

from lab.fake_azure.cloud import Cloud, sizes
from lab.fake_azure.errors import ApiError
from lab.fake_azure.records import IpConfiguration, Machine, Nic, ScaleSet

Kind = Literal["single", "flexible", "uniform"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


def launch(
    cloud: Cloud,
    size: str,
    *,
    kind: str = "single",
    subnet_id: str = "",
    private_address: str = "",
    group_ids: Sequence[str] = (),
    zone: str = "1",
    tags: Mapping[str, str] | None = None,
    interfaces: int = 1,
) -> Machine:
    """Raises ApiError. Of a scale set, the set named "vmss-<kind>" is made when it is first needed."""
    most = sizes().get(size)
    if most is None:
        raise ApiError("InvalidParameter", f"The value '{size}' of parameter 'vmSize' is invalid.")
    if kind not in KINDS:
        raise ApiError("InvalidParameter", f"kind: must be one of {', '.join(KINDS)}, not {kind!r}")
    if not 1 <= interfaces <= most:
        raise ApiError("OperationNotAllowed", f"{interfaces} interfaces exceed the {most} of {size}.")
    subnet_id = (subnet_id or next(iter(cloud.subnets))).lower()
    number = cloud.new_number()
    scale_set = _scale_set(cloud, kind) if kind != "single" else None
    uniform = kind == "uniform"
    if uniform:
        assert scale_set is not None
        machine_id = f"{scale_set.id}/virtualmachines/{number}"
    else:
        machine_id = cloud.resource_id("Microsoft.Compute", "virtualMachines", f"vm-{number}")
    machine = Machine(
        number, machine_id, machine_id.rpartition("/")[2], size, zone, cloud.new_etag(), uniform=uniform,
        scale_set_id=scale_set.id if scale_set else "", tags=dict(tags or {}),
    )  # fmt: skip
    addresses = [cloud.allocate(subnet_id, private_address)]
    addresses += [cloud.allocate(subnet_id) for _ in range(interfaces - 1)]
    for device, address in enumerate(addresses):
        name = f"nic-{device}" if uniform else f"vm-{number}-nic-{device}"
        nic_id = (
            f"{machine_id}/networkinterfaces/{name}"
            if uniform
            else cloud.resource_id("Microsoft.Network", "networkInterfaces", name)
        )
        first = IpConfiguration("primary", subnet_id, address, primary=True)
        nic = Nic(cloud.new_number(), nic_id, name, cloud.new_mac(), (first,), cloud.new_etag(), machine_id=machine_id)
        cloud.put_nic(replace(nic, device=device, group_id=group_ids[0].lower() if group_ids else ""))
    cloud.put_machine(machine)
    return machine


def _scale_set(cloud: Cloud, kind: str) -> ScaleSet:
    scale_set_id = cloud.resource_id("Microsoft.Compute", "virtualMachineScaleSets", f"vmss-{kind}")
    found = cloud.scale_sets.current.get(scale_set_id)
    if found is None:
        found = ScaleSet(cloud.new_number(), scale_set_id, f"vmss-{kind}", kind == "uniform")
        cloud.scale_sets.put(found)
    return found


def lone_nic(cloud: Cloud, subnet_id: str) -> Nic:
    """An interface that is attached to nothing."""
    name = f"lone-{cloud.new_number()}"
    configuration = IpConfiguration("primary", subnet_id, cloud.allocate(subnet_id), True)
    nic_id = cloud.resource_id("Microsoft.Network", "networkInterfaces", name)
    nic = Nic(cloud.new_number(), nic_id, name, cloud.new_mac(), (configuration,), cloud.new_etag())
    cloud.put_nic(nic)
    return nic
