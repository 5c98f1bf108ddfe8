"""Named pools of a node: chosen by labels, told by streams of their own, in force together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ipam.model import AddressState, PoolInterface
from services.node.network import Parts
from services.node.settings import Settings
from services.node.wiring import node_spec, pool_spec
from services.runtime.settings import SettingsError, load

BASE = """
name = "n1"
instance_id = "i-1"
ipam = "unix:/run/ipam.sock"
subnet_ids = ["subnet-0"]
watermarks = { pre_allocate = 4 }
public_address_tags = { pool = "egress" }
"""
TWO = """
[[pools]]
name = "payments"
match_labels = { tier = "payments" }
subnet_tags = { pool = "payments" }
security_group_ids = ["sg-1"]
watermarks = { pre_allocate = 1 }
[[pools]]
name = "batch"
match_labels = { "io.kubernetes.pod.namespace" = "batch" }
"""


def settings(folder: Path, text: str) -> Settings:
    path = folder / "node.toml"
    path.write_text(text)
    return load(Settings, ["--config", str(path)], environ={})


@pytest.mark.parametrize(
    ("labels", "pool"),
    [
        ({}, ""),
        ({"tier": "web"}, ""),
        ({"tier": "payments"}, "payments"),
        ({"tier": "payments", "io.kubernetes.pod.namespace": "batch"}, "payments"),  # the first match wins
        ({"io.kubernetes.pod.namespace": "batch"}, "batch"),
    ],
)
def test_labels_choose_the_pool(tmp_path: Path, labels: dict[str, str], pool: str) -> None:
    assert settings(tmp_path, BASE + TWO).pool_of(labels) == pool


def test_a_pool_says_what_is_its_own_and_shares_neither_subnets_nor_the_public_address(tmp_path: Path) -> None:
    told = settings(tmp_path, BASE + TWO)
    own, payments, batch = node_spec(told), *(pool_spec(told, each) for each in told.pools)
    assert (own.pool, list(own.subnet_ids)) == ("", ["subnet-0"])
    assert (payments.name, payments.pool, payments.instance_id) == ("n1", "payments", "i-1")
    assert (list(payments.subnet_ids), dict(payments.subnet_tags)) == ([], {"pool": "payments"})
    assert payments.watermarks.pre_allocate == 1
    assert own.watermarks.pre_allocate == 4
    assert not batch.HasField("watermarks"), "else each pool would add to the node's"
    assert not payments.public_address_tags


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[pools]]\nname = "Default"\nmatch_labels = { a = "b" }', "lower-case"),
        ('[[pools]]\nname = "default"\nmatch_labels = { a = "b" }', "always there"),
        ('[[pools]]\nname = "a/b"\nmatch_labels = { a = "b" }', "lower-case"),
        ('[[pools]]\nname = "a"\nmatch_labels = {}', "every pod"),
        ('[[pools]]\nname = "a"', "match_labels"),
        ('[[pools]]\nname = "a"\nmatch_labels = { a = "b" }\n' * 2, "two pools"),
        ('[[pools]]\nname = "a"\nmatch_labels = { a = "b" }\nsubnets = []', "subnets"),
    ],
)
def test_a_pool_that_cannot_be_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(tmp_path, BASE + text)
    assert "pools" in str(refused.value)
    assert words in str(refused.value)


def test_pools_need_a_cloud_and_azure_has_no_interfaces_to_make(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="set ipam"):
        settings(tmp_path, 'name = "n1"\n[[pools]]\nname = "a"\nmatch_labels = { a = "b" }')
    azure = 'cloud = "azure"\n' + BASE.replace('subnet_ids = ["subnet-0"]\n', "")
    with pytest.raises(SettingsError, match="plimsoll:pool=payments"):
        settings(tmp_path, azure + TWO)
    assert settings(tmp_path, azure + '[[pools]]\nname = "a"\nmatch_labels = { a = "b" }').pools[0].name == "a"


class Taker:
    """The network, as Parts sees it."""

    def __init__(self) -> None:
        self.whole: dict[str, str] = {}
        self.problems: dict[str, str] = {}

    async def take(self, interfaces: Mapping[str, PoolInterface]) -> Mapping[str, str]:
        self.whole = {key: one.pool for key, one in interfaces.items()}
        return {key: why for key, why in self.problems.items() if key in interfaces}


def eni(name: str, pool: str = "") -> PoolInterface:
    return PoolInterface(
        name, "02::1", 1, "subnet-1", "10.0.0.0/24", "10.0.0.1", "10.0.0.200", "vpc-1", "a", (), (),
        {"10.0.0.10": AddressState.AVAILABLE}, pool=pool,
    )  # fmt: skip


async def test_a_pool_that_has_not_told_yet_stays_as_the_journal_has_it() -> None:
    taker = Taker()
    known = {"eni-1": eni("eni-1"), "eni-2": eni("eni-2", "payments"), "eni-3": eni("eni-3", "dropped")}
    parts = Parts(taker, ["", "payments"], known)  # type: ignore[arg-type]
    await parts.take("", {"eni-1": eni("eni-1"), "eni-4": eni("eni-4")})
    assert taker.whole == {"eni-1": "", "eni-4": "", "eni-2": "payments"}
    taker.problems = {"eni-1": "no device", "eni-5": "no device"}
    assert await parts.take("payments", {"eni-5": eni("eni-5")}) == {"eni-5": "no device"}
    assert taker.whole == {"eni-1": "", "eni-4": "", "eni-5": "payments"}


async def test_an_interface_that_changes_its_pool_is_where_it_was_told_last() -> None:
    taker = Taker()
    parts = Parts(taker, ["", "payments"], {})  # type: ignore[arg-type]
    await parts.take("", {"eni-1": eni("eni-1"), "eni-2": eni("eni-2")})
    await parts.take("payments", {"eni-2": eni("eni-2")})
    assert taker.whole == {"eni-1": "", "eni-2": "payments"}


async def test_pools_that_the_node_has_no_more_are_left_out_before_it_says_so() -> None:
    taker = Taker()
    known = {"eni-1": eni("eni-1"), "eni-2": eni("eni-2", "payments"), "eni-3": eni("eni-3", "dropped")}
    await Parts(taker, ["", "payments"], known).begin()  # type: ignore[arg-type]
    assert taker.whole == {"eni-1": "", "eni-2": "payments"}
    del known["eni-3"]
    untouched = Taker()
    await Parts(untouched, ["", "payments"], known).begin()  # type: ignore[arg-type]
    assert untouched.whole == {}, "nothing to leave out: the kernel has what the journal has"
