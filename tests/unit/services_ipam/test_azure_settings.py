"""What `ipam-azure` and its worker may be told, and that neither loads the SDKs before its first call."""

from __future__ import annotations

import subprocess
import sys

import pytest

from services.ipam_azure.settings import Settings
from services.runtime.settings import SettingsError, load
from services.worker.settings import Settings as WorkerSettings

ACCOUNT = "00000000-1111-2222-3333-444444444444"
PLACE = {"account": ACCOUNT, "region": "westeurope"}
NETWORK = f"/subscriptions/{ACCOUNT}/resourceGroups/Net/providers/Microsoft.Network/virtualNetworks/Main"
WORKER = ["--cloud", "azure", "--region", "westeurope", "--ipam", "unix:/run/plimsoll/ipam.sock", "--account", ACCOUNT]


def settings(**given: str) -> Settings:
    environ = {f"PLIMSOLL_IPAM_AZURE_{name.upper()}": value for name, value in {**PLACE, **given}.items()}
    return load(Settings, [], environ=environ)


def test_a_subscription_is_understood_in_any_case() -> None:
    assert settings(account="ABCDEF00-1111-2222-3333-444444444444").account == "abcdef00-1111-2222-3333-444444444444"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("account", "123456789012", "subscription's id"),
        ("region", "West Europe", "westeurope"),
        ("subnet_ids", "subnet-1", "no such thing on Azure"),
        ("security_group_tags", "a=b", "no such thing on Azure"),
        ("prefix_delegation", "true", "no such thing on Azure"),
        ("release_interfaces", "true", "no such thing on Azure"),
        ("ipv6", "true", "no such thing on Azure"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(**{name: value})
    assert name in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--account", "123456789012"], "subscription's id"),
        (["--scope.vpc-ids", "vpc-1"], "virtualNetworks"),
        (["--scope.vpc-cidrs", "10.0.0.0/16"], "scope.vpc_cidrs"),
        (["--scope.subnet-tags", "a=b"], "scope.subnet_tags"),
    ],
)
def test_a_worker_of_azure_is_told_what_cannot_be(more: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load(WorkerSettings, [*WORKER, *more], environ={})


def test_a_worker_of_azure_speaks_to_its_service_and_looks_at_its_scope() -> None:
    told = load(WorkerSettings, [*WORKER, "--scope.vpc-ids", NETWORK, "--scope.resource-groups", "nodes"], environ={})
    assert told.identity == "service/ipam-azure"
    assert (told.scope.vpc_ids, told.scope.resource_groups) == ((NETWORK,), ("nodes",))
    aws = ["--cloud", "aws", "--region", "eu-west-1", "--account", "123456789012", "--ipam", "unix:/run/x"]
    with pytest.raises(SettingsError, match="resource_groups"):
        load(WorkerSettings, [*aws, "--scope.resource-groups", "nodes"], environ={})


def test_the_sdks_are_not_loaded_with_the_provider() -> None:
    program = (
        "import sys\n"
        "from services.worker.providers import provider\n"
        "from services.worker.settings import Settings\n"
        f"chosen = Settings(cloud='azure', account='{ACCOUNT}', region='westeurope', ipam='unix:/run/ipam.sock')\n"
        "made = provider(chosen, lambda *_: None)\n"
        "loaded = [name for name in sys.modules if name.startswith(('azure', 'msal', 'boto'))]\n"
        "print(type(made).__name__, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "AzureProvider []"
