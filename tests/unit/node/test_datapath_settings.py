"""What of the datapath cannot be is told with its name before anything is started, as `plimsoll config check node`
does."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapath.config import RoutingMode
from services.node.datapath import config_of
from services.node.settings import Settings
from services.runtime.settings import SettingsError, load


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("map_entries = {flow = 4096}", "datapath.map_entries", "there are flows, nat, fragments"),
        ("map_entries = {nat = 3}", "datapath.map_entries", "nat: 3 entries are not in 1024"),
        ('masquerade_ports = "5"', "datapath.masquerade_ports", "FIRST-LAST, such as 1024-29999"),
        ("map_ratio = 1", "datapath.map_ratio", "0.2"),
        ("recheck_s = 100", "datapath.recheck_s", "60"),
        ('sockmap_cgroup = "kubepods"', "datapath.sockmap_cgroup", "an absolute path"),
        ('routing = "magic"', "datapath.routing", "native"),
        ("timeouts = {tcp_open_s = 0}", "datapath.timeouts.tcp_open_s", "604800"),
        ('cluster_cidrs = ["10.0.0.0/40"]', "datapath.cluster_cidrs", "10.0.0.0/40"),
    ],
)
def test_an_error_names_its_field(tmp_path: Path, line: str, name: str, said: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'name = "a"\n[datapath]\n{line}\n')
    with pytest.raises(SettingsError) as refused:
        load(Settings, ["--config", str(file)], name="node")
    assert name in str(refused.value)
    assert said in str(refused.value)


def test_what_is_accepted_is_what_the_datapath_gets() -> None:
    settings = Settings.model_validate(
        {
            "name": "a",
            "datapath": {
                "routing": "tunnel",
                "masquerade_ports": "2000-2999",
                "map_entries": {"flows": 65536},
                "timeouts": {"tcp_closing_s": 3},
                "cluster_cidrs": ["10.0.0.0/8"],
            },
        }
    )
    config = config_of(settings.datapath)
    assert config.routing is RoutingMode.TUNNEL
    assert config.nat_ports == (2000, 2999)
    assert config.sizing.entries == {"flows": 65536}
    assert config.timeouts.tcp_closing_s == 3
    assert config.cluster_cidrs == ("10.0.0.0/8",)
