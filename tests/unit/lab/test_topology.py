"""What changes in the fabric when the cloud's state does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.topology import Port, difference, read_label, read_state


def row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "eni-0123456789abcdef0",
        "mac": "02:AB:00:00:00:01",
        "instance_id": "i-1",
        "device_index": 1,
        "subnet_id": "subnet-1",
        "subnet_cidr": "10.0.4.0/22",
        "vpc_cidr": "10.0.0.0/16",
        "primary": False,
        "addresses": ["10.0.4.10", "10.0.4.11"],
        "status": "in-use",
        **changes,
    }


def test_an_attached_interface_becomes_a_port() -> None:
    state = read_state({"revision": 7, "interfaces": [row()], "instances": []})
    port = state.ports["eni-0123456789abcdef0"]
    assert state.revision == 7
    assert port.device == "ens6"
    assert port.mac == "02:ab:00:00:00:01"
    assert port.gateway == "10.0.4.1"
    assert port.primary_address == "10.0.4.10"
    assert port.addresses == {"10.0.4.10", "10.0.4.11"}
    assert len(port.router_device) <= 15


def test_what_is_not_plugged_is_no_port() -> None:
    rows = [row(instance_id=""), row(status="attaching"), row(status="available"), row(status="detaching")]
    assert not read_state({"revision": 1, "interfaces": rows, "instances": []}).ports


@pytest.mark.parametrize(("told", "gateway"), [({}, "10.0.4.1"), ({"gateway": "10.0.7.253"}, "10.0.7.253")])
def test_a_label_tells_the_port_back(told: dict[str, str], gateway: str) -> None:
    port = read_state({"revision": 1, "interfaces": [row(**told)]}).ports["eni-0123456789abcdef0"]
    assert port.gateway == gateway
    assert read_label(port.label, port.addresses) == port


def test_members_of_a_delegated_prefix_are_its_addresses_too() -> None:
    port = read_state({"revision": 1, "interfaces": [row(prefixes=["10.0.4.32/28"])]}).ports["eni-0123456789abcdef0"]
    assert "10.0.4.32/28" in port.addresses
    assert port.single_addresses == {"10.0.4.10", "10.0.4.11", *(f"10.0.4.{host}" for host in range(32, 48))}


PORTS = st.dictionaries(
    st.sampled_from(["eni-a", "eni-b", "eni-c"]),
    st.tuples(st.sampled_from(["i-1", "i-2"]), st.frozensets(st.integers(10, 16), max_size=5)),
)


def build(plan: dict[str, tuple[str, frozenset[int]]], revision: int) -> dict[str, Port]:
    """Ports of which no two hold the same address, as the cloud guarantees."""
    taken: set[int] = set()
    ports = {}
    for number, (identity, (instance, hosts)) in enumerate(sorted(plan.items())):
        primary = f"10.0.1.{number}"
        addresses = frozenset({primary, *(f"10.0.0.{host}" for host in hosts - taken)})
        taken |= hosts
        ports[identity] = Port(
            identity, f"02::{number}", instance, number, "10.0.0.0/16", "10.0.0.0/16", primary, addresses
        )
    return ports


@given(PORTS, PORTS)
def test_the_difference_leads_from_any_state_to_any_other(
    before: dict[str, tuple[str, frozenset[int]]], after: dict[str, tuple[str, frozenset[int]]]
) -> None:
    actual, wanted = build(before, 1), build(after, 2)
    todo = difference(actual, wanted)

    routes = {address: port.id for port in actual.values() for address in port.addresses}
    plugged = dict.fromkeys(actual)
    for port in todo.unplug:
        del plugged[port.id]
        routes = {address: key for address, key in routes.items() if key != port.id}
    for port in todo.plug:
        assert port.id not in plugged
        plugged[port.id] = None
    for address, key in todo.route.items():
        assert key in plugged
        routes[address] = key
    for address in todo.unroute:
        del routes[address]

    assert plugged.keys() == wanted.keys()
    assert routes == {address: port.id for port in wanted.values() for address in port.addresses}
    assert not difference(wanted, wanted)


ACCOUNT = "/subscriptions/00000000-1111-2222-3333-444444444444/resourcegroups/lab/providers"
SET = f"{ACCOUNT}/microsoft.compute/virtualmachinescalesets/vmss-uniform/virtualmachines/100"


@pytest.mark.parametrize(
    ("instance_id", "interface_id"),
    [
        (
            f"{ACCOUNT}/microsoft.compute/virtualmachines/vm-100",
            f"{ACCOUNT}/microsoft.network/networkinterfaces/vm-100-0",
        ),
        (SET, f"{SET}/networkinterfaces/nic-0"),
    ],
)
def test_azures_long_ids_fit_into_an_alias_and_come_back(instance_id: str, interface_id: str) -> None:
    rows = [row(id=interface_id, instance_id=instance_id)]
    port = read_state({"revision": 1, "interfaces": rows}).ports[interface_id]
    assert len(port.label) < 256
    assert len(port.router_device) <= 15
    assert "/" not in port.router_device
    assert read_label(port.label, port.addresses) == port
