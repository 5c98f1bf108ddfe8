"""CNI requests as the specification words them, answered by a node whose kernel is a fake."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from datapath.errors import KernelRefused
from tests.unit.node.conftest import MemoryNode

A, B = "10.0.0.10", "10.0.0.11"


def test_add_gives_an_address_and_wires_it(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    code, result = memory_node.ask("ADD", args="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web")
    assert code == 0
    assert result["ips"] == [{"address": f"{A}/32", "gateway": "169.254.1.1", "interface": 1}]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]
    [endpoint] = memory_node.endpoints.wired.values()
    assert result["interfaces"][1] == {
        "name": "eth0", "mac": endpoint.mac, "sandbox": "/run/netns/c1", "mtu": 9001,
    }  # fmt: skip
    assert memory_node.pool.leases()[0].pod == "shop/web"


def test_the_same_add_again_gets_the_same_address(memory_node: MemoryNode) -> None:
    memory_node.give(A, B)
    assert memory_node.ask("ADD") == memory_node.ask("ADD")
    assert len(memory_node.pool.leases()) == 1


def test_an_add_from_another_namespace_moves_the_pod_there(memory_node: MemoryNode) -> None:
    memory_node.give(A, B)
    memory_node.ask("ADD", netns="/run/netns/old")
    code, result = memory_node.ask("ADD", netns="/run/netns/new")
    assert code == 0
    assert result["ips"][0]["address"] == f"{A}/32"
    assert memory_node.pool.leases()[0].attributes["netns"] == "/run/netns/new"


def test_del_is_idempotent_and_needs_no_namespace(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    memory_node.ask("ADD")
    for _ in range(2):
        assert memory_node.ask("DEL", netns="") == (0, {})
    assert not memory_node.endpoints.wired
    assert memory_node.ask("DEL", "never-seen", netns="") == (0, {})


def test_an_empty_pool_says_try_again_later(memory_node: MemoryNode) -> None:
    code, error = memory_node.ask("ADD")
    assert (code, error["code"]) == (1, 11)
    assert "no free address" in error["msg"]
    assert error["details"]
    assert memory_node.pool.usage().pending_pods == 1
    memory_node.ask("DEL")
    assert memory_node.pool.usage().pending_pods == 0, "who was deleted waits no more"


def test_what_fails_in_the_middle_leaves_nothing_behind(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    memory_node.endpoints.fail_next = KernelRefused("create the pair", 12)
    code, error = memory_node.ask("ADD")
    assert (code, error["code"]) == (1, 100)
    assert not memory_node.pool.leases()
    assert memory_node.ask("ADD", "c2")[0] == 0, "and its address needs no rest: no packet has carried it"


def test_a_namespace_that_is_gone(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    memory_node.endpoints.gone.add("/run/netns/c1")
    code, error = memory_node.ask("ADD")
    assert (code, error["code"]) == (1, 4)
    assert not memory_node.pool.leases()


def test_a_failed_repetition_keeps_the_running_pods_lease(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    memory_node.ask("ADD")
    memory_node.endpoints.fail_next = KernelRefused("create the pair", 12)
    assert memory_node.ask("ADD")[0] == 1
    assert [lease.address for lease in memory_node.pool.leases()] == [A]


@pytest.mark.parametrize(
    ("version", "says_family", "says_mtu"),
    [
        ("0.3.0", True, False),
        ("0.3.1", True, False),
        ("0.4.0", True, False),
        ("1.0.0", False, False),
        ("1.1.0", False, True),
    ],
)
def test_results_speak_the_version_asked_for(
    memory_node: MemoryNode, version: str, says_family: bool, says_mtu: bool
) -> None:
    memory_node.give(A)
    code, result = memory_node.ask("ADD", version=version)
    assert (code, result["cniVersion"]) == (0, version)
    assert ("version" in result["ips"][0]) == says_family
    assert ("mtu" in result["interfaces"][1]) == says_mtu


def test_what_earlier_plugins_brought_is_kept(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    before = {
        "interfaces": [{"name": "lo"}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "dns": {"search": ["x"]},
    }
    _, result = memory_node.ask("ADD", config={"prevResult": before})
    assert [one["name"] for one in result["interfaces"]][::2] == ["lo", "eth0"]
    assert result["ips"][1]["interface"] == 2
    assert result["dns"] == {"search": ["x"]}


def test_check_compares_result_lease_and_kernel(memory_node: MemoryNode) -> None:
    memory_node.give(A)
    _, result = memory_node.ask("ADD")
    assert memory_node.ask("CHECK", config={"prevResult": result}) == (0, {})
    other = {**result, "ips": [{"address": "10.0.0.99/32"}]}
    assert memory_node.ask("CHECK", config={"prevResult": other})[1]["code"] == 101
    memory_node.endpoints.wired.clear()
    assert memory_node.ask("CHECK", config={"prevResult": result})[1]["code"] == 101
    assert memory_node.ask("CHECK", "unknown", config={"prevResult": result})[1]["code"] == 3
    assert memory_node.ask("CHECK")[1]["code"] == 7, "without prevResult there is nothing to check"


def test_gc_removes_what_is_no_longer_valid(memory_node: MemoryNode) -> None:
    memory_node.give(A, B)
    memory_node.ask("ADD", "kept")
    memory_node.ask("ADD", "gone")
    valid = [{"containerID": "kept", "ifname": "eth0"}]
    other_network = {"name": "another", "cni.dev/valid-attachments": []}
    assert memory_node.ask("GC", config=other_network) == (0, {}), "pods of another network are none of its business"
    assert len(memory_node.pool.leases()) == 2
    assert memory_node.ask("GC", config={"cni.dev/valid-attachments": valid}) == (0, {})
    assert [lease.owner.container_id for lease in memory_node.pool.leases()] == ["kept"]
    assert memory_node.ask("GC")[1]["code"] == 7, "a missing list is not an empty one"
    assert len(memory_node.pool.leases()) == 1


def test_status_tells_whether_pods_can_be_added(memory_node: MemoryNode) -> None:
    code, error = memory_node.ask("STATUS")
    assert (code, error["code"]) == (1, 50)
    memory_node.give(A)
    assert memory_node.ask("STATUS") == (0, {})
    memory_node.pool.set_unusable({"eni-1": "no device of this node has its MAC"})
    assert "no device" in memory_node.ask("STATUS")[1]["msg"]


@pytest.mark.parametrize(
    ("story", "change", "code", "says"),
    [
        ("an unknown command", {"command": "EXPLODE"}, 4, "CNI_COMMAND"),
        ("no container", {"container": ""}, 4, "CNI_CONTAINERID"),
        ("a container id with a slash", {"container": "a/b"}, 4, "CNI_CONTAINERID"),
        ("no interface name", {"interface": ""}, 4, "CNI_IFNAME"),
        ("an interface name too long", {"interface": "x" * 16}, 4, "CNI_IFNAME"),
        ("an interface name with a space", {"interface": "eth 0"}, 4, "CNI_IFNAME"),
        ("no namespace", {"netns": ""}, 4, "CNI_NETNS"),
        ("an unknown version", {"version": "9.9.9"}, 1, "9.9.9"),
        ("a command newer than the version", {"command": "GC", "version": "1.0.0"}, 1, "GC"),
        ("no name of the network", {"config": {"name": ""}}, 7, "name"),
        ("a result that is a list", {"config": {"prevResult": []}}, 7, "prevResult"),
        ("no JSON", {"raw": b"{"}, 6, "not JSON"),
        ("a JSON list", {"raw": b"[]"}, 6, "object"),
        (
            "attachments that are none",
            {"command": "GC", "config": {"cni.dev/valid-attachments": [1]}},
            7,
            "attachments",
        ),
    ],
)
def test_mistakes_are_named(memory_node: MemoryNode, story: str, change: dict[str, Any], code: int, says: str) -> None:
    memory_node.give(A)
    exit_code, error = memory_node.ask(change.pop("command", "ADD"), **change)
    assert (exit_code, error["code"]) == (1, code), story
    assert says in error["msg"]
    assert not memory_node.pool.leases()


def test_requests_of_one_container_follow_one_another(memory_node: MemoryNode) -> None:
    memory_node.give(A, B)
    with ThreadPoolExecutor(8) as threads:
        commands = ["ADD", "DEL"] * 20
        answers = list(threads.map(lambda command: memory_node.ask(command)[0], commands))
    memory_node.ask("DEL")
    assert not memory_node.endpoints.wired
    assert not memory_node.pool.leases()
    assert set(answers) <= {0, 1}
