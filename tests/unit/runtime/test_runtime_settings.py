"""Settings: which source wins, and what a person is told when a setting can't be."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.runtime.settings import HelpShown, ServiceSettings, SettingsError, load


class ExampleSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="PLIMSOLL_EXAMPLE_")

    node: str = Field("node-1", description="name of the node")
    replicas: int = Field(3, ge=1, le=9, description="copies")
    rate: float = Field(1.0, gt=0, json_schema_extra={"remedy": "ask the cloud for more"})
    subnet_ids: tuple[str, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)
    store: str = "sqlite:////tmp/x.db"
    password: SecretStr = SecretStr("")


def example(*argv: str, **environ: str) -> ExampleSettings:
    return load(ExampleSettings, argv, environ={f"PLIMSOLL_EXAMPLE_{key}": value for key, value in environ.items()})


def complaint(*argv: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        example(*argv, **environ)
    return str(caught.value)


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    file.write_text('node = "from-file"\nreplicas = 5\nlog_level = "error"\n[tags]\nteam = "net"\n')
    assert example("--config", str(file)).node == "from-file"
    settings = example("--config", str(file), "--node", "from-flag", NODE="from-env", REPLICAS="7", TAGS="zone=a")
    assert (settings.node, settings.replicas, settings.log_level) == ("from-flag", 7, "error")
    assert settings.tags == {"team": "net", "zone": "a"}, "tables are merged key by key"


@pytest.mark.parametrize("value", ["subnet-1,subnet-2", '["subnet-1", "subnet-2"]'])
def test_lists_may_be_written_plainly_or_as_json(value: str) -> None:
    assert example(SUBNET_IDS=value).subnet_ids == ("subnet-1", "subnet-2")
    assert example("--subnet-ids", value).subnet_ids == ("subnet-1", "subnet-2")


def test_nested_settings_and_switches_as_flags() -> None:
    argv = ["--tls.ca", "/a", "--tls.certificate", "/b", "--tls.key", "/c", "--listen", "10.0.0.1:7401"]
    settings = example(*argv, "--insecure-loopback")
    assert settings.tls is not None
    assert settings.tls.certificate == Path("/b")
    assert settings.insecure_loopback


def test_only_load_looks_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLIMSOLL_EXAMPLE_NODE", "leaked")
    assert ExampleSettings().node == "node-1"
    assert load(ExampleSettings, []).node == "leaked"


@pytest.mark.parametrize(
    ("story", "argv", "environ", "said"),
    [
        ("too many", ["--replicas", "12"], {}, ["replicas", '"12"', "flags", "1 to 9", "PLIMSOLL_EXAMPLE_REPLICAS"]),
        ("no number", [], {"REPLICAS": "many"}, ["replicas", '"many"', "environment", "whole number of 1 to 9"]),
        ("no such level", [], {"LOG_LEVEL": "loud"}, ["log_level", '"loud"', "{debug,info,warning,error}"]),
        ("its own remedy", ["--rate", "0"], {}, ["rate", '"0"', "more than 0", "ask the cloud for more"]),
        ("half of TLS", ["--tls.ca", "/a"], {}, ["tls.certificate: not set", "tls.key: not set", "--tls.key"]),
        ("no port", ["--listen", "10.0.0.1"], {}, ["listen", '"10.0.0.1"', "host:port", "0 to 65535"]),
        ("port too big", ["--listen", "10.0.0.1:70000"], {}, ["listen", "0 to 65535"]),
        ("bare IPv6", ["--listen", "::1:80"], {}, ["listen", "brackets"]),
        ("no TLS", ["--listen", "10.0.0.1:1"], {}, ["listen", "tls.ca", "plimsoll pki"]),
        ("open to all", ["--listen", "0.0.0.0:1", "--insecure-loopback"], {}, ["listen", "loopback"]),
        ("socket too long", ["--socket", "/" + "x" * 120], {}, ["socket", "107 bytes"]),
        ("typing error", [], {"REPLICA": "3"}, ["PLIMSOLL_EXAMPLE_REPLICA:", "did you mean PLIMSOLL_EXAMPLE_REPLICAS"]),
        ("unknown flag", ["--replica", "3"], {}, ["--replica", "--help"]),
        ("missing file", ["--config", "/nowhere.toml"], {}, ["config", "/nowhere.toml", "No such file"]),
    ],
)
def test_a_bad_value_is_told_with_field_value_range_and_remedy(
    story: str, argv: list[str], environ: dict[str, str], said: list[str]
) -> None:
    text = complaint(*argv, **environ)
    for part in said:
        assert part in text, story


def test_every_bad_field_has_its_line() -> None:
    lines = complaint("--replicas", "0", "--listen", "x", LOG_FORMAT="xml").splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["listen", "log_format", "replicas"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("replica = 3\n", ["replica: no such setting", "did you mean replicas", "file"]),
        ('[tls]\nca = "/a"\ncertificate = "/b"\nkey = "/c"\nkeys = "/d"\n', ["tls.keys: no such setting"]),
        ("node = \n", ["is not TOML", "line 1"]),
        ('tags = "zone"\n', ["tags", '"zone"', "key=value"]),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, content: str, said: list[str]) -> None:
    file = tmp_path / "example.toml"
    file.write_text(content)
    text = complaint("--config", str(file))
    for part in said:
        assert part in text


def test_secrets_are_not_repeated() -> None:
    text = complaint("--replicas", "0", PASSWORD="hunter2")
    assert "hunter2" not in text
    with pytest.raises(HelpShown) as shown:
        load(ExampleSettings, ["--help"], environ={"PLIMSOLL_EXAMPLE_STORE": "postgresql://me:hunter2@db/x"})
    assert "hunter2" not in str(shown.value)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--password", "hunter2"], id="a secret setting"),
        pytest.param(["--store", "postgresql://me:hunter2@db/x"], id="a password in a URL"),
        pytest.param(["--store", "postgresql://db/x?user=me&password=hunter2"], id="a password in a query"),
        pytest.param(["--stores", "postgresql://me:hunter2@db/x"], id="a flag that does not exist"),
    ],
)
def test_a_secret_is_refused_as_a_flag_for_all_to_see(flags: list[str]) -> None:
    text = complaint(*flags)
    assert "hunter2" not in text
    assert "PLIMSOLL_EXAMPLE_" in text or "--stores" in text


def test_variables_that_kubernetes_makes_for_a_service_are_not_ours() -> None:
    links = {"SERVICE_HOST": "10.0.0.1", "PORT": "tcp://10.0.0.1:1", "PORT_7401_TCP_ADDR": "10.0.0.1"}
    assert example(**links).node == "node-1"


def test_help_tells_each_setting() -> None:
    with pytest.raises(HelpShown) as shown:
        example("--help")
    for part in (
        "--tls.ca path",
        "--replicas whole number of 1 to 9",
        "copies",
        "PLIMSOLL_EXAMPLE_TLS__CA",
        "default: 3",
    ):
        assert part in str(shown.value)


def test_the_settings_in_force_can_be_shown_and_read_again(tmp_path: Path) -> None:
    with pytest.raises(HelpShown) as shown:
        example(
            *("--print-config", "--replicas", "5", "--tls.ca", "/a", "--tls.certificate", "/b", "--tls.key", "/c"),
            TAGS="zone=a,team=net",
            SUBNET_IDS="subnet-1",
            PASSWORD="hunter2",
            STORE="postgresql://me:hunter2@db/x",
        )
    text = str(shown.value)
    assert "hunter2" not in text
    assert "replicas = 5  # flags" in text
    assert 'node = "node-1"  # default' in text
    file = tmp_path / "shown.toml"
    file.write_text(text)
    again = example("--config", str(file))
    assert (again.replicas, again.tags, again.subnet_ids) == (5, {"zone": "a", "team": "net"}, ("subnet-1",))
    assert again.tls is not None
    assert again.tls.key == Path("/c")
