"""What `ipam-alibaba` and its worker may be told, and that neither loads the SDK before its first call."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.ipam_alibaba.settings import Settings
from services.runtime.settings import SettingsError, load
from services.worker.settings import Settings as WorkerSettings

ACCOUNT = "1234567890123456"
PLACE = {"account": ACCOUNT, "region": "cn-hangzhou"}


def settings(**given: str) -> Settings:
    environ = {f"PLIMSOLL_IPAM_ALIBABA_{name.upper()}": value for name, value in {**PLACE, **given}.items()}
    return load(Settings, [], environ=environ)


def test_the_primary_interface_is_the_hosts_own_unless_said_otherwise() -> None:
    assert settings().node_defaults().first_interface_index == 1
    assert settings(first_interface_index="0").node_defaults().first_interface_index == 0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("account", "123456789012", "16 digits"),
        ("region", "Hangzhou", "cn-hangzhou"),
        ("subnet_ids", "subnet-0123456789abcdef0", "vsw-"),
        ("security_group_ids", "vsw-bp15zckdt37pq72zvwvv2", "sg-"),
        ("ipv6", "true", "not managed"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(**{name: value})
    assert name in str(refused.value)
    assert words in str(refused.value)


def test_a_worker_of_alibaba_cloud_is_told_its_account_and_speaks_to_its_service() -> None:
    argv = ["--cloud", "alibaba", "--region", "cn-hangzhou", "--ipam", "unix:/run/plimsoll/ipam.sock"]
    assert load(WorkerSettings, [*argv, "--account", ACCOUNT], environ={}).identity == "service/ipam-alibaba"
    with pytest.raises(SettingsError, match="16 digits"):
        load(WorkerSettings, [*argv, "--account", "123456789012"], environ={})


def test_the_sdk_is_not_loaded_with_the_provider() -> None:
    program = (
        "import sys\n"
        "from services.worker.providers import provider\n"
        "from services.worker.settings import Settings\n"
        f"chosen = Settings(cloud='alibaba', account='{ACCOUNT}', region='cn-hangzhou', ipam='unix:/run/ipam.sock')\n"
        "made = provider(chosen, lambda *_: None)\n"
        "loaded = [name for name in sys.modules if name.startswith(('alibabacloud', 'Tea', 'boto'))]\n"
        "print(type(made).__name__, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "AlibabaProvider []"
