"""The clouds that a lab can run on, one fake each, and what differs between them.

Their networks do not overlap, so that one fabric and one registry serve all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

CloudName = Literal["aws", "azure", "alibaba"]
Choice = Literal["aws", "azure", "alibaba", "all"]


@dataclass(frozen=True, slots=True)
class CloudKind:
    """One fake cloud of a lab with the processes that belong to it.

    :ivar fake: the fake's name and the module that runs it; `port` is where it listens in the control namespace.
    :ivar ipam_port: where its IPAM service listens for nodes and workers.
    :ivar network_arguments: for the fake, so that its network is `vpc_cidr`.
    :ivar service_settings, worker_settings: beyond what all clouds have in common.
    :ivar environment: credentials of the worker, which a fake accepts as they are.
    """

    name: CloudName
    fake: str
    fake_module: str
    port: int
    ipam_port: int
    account: str
    region: str
    vpc_cidr: str
    instance_type: str
    network_arguments: tuple[str, ...] = ()
    service_settings: Mapping[str, Any] = field(default_factory=dict)
    worker_settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def service(self) -> str:
        return f"ipam-{self.name}"

    @property
    def module(self) -> str:
        return f"services.ipam_{self.name}"

    @property
    def worker(self) -> str:
        """The worker's name; that of AWS has none of its own, being the first there was."""
        return "worker" if self.name == "aws" else f"worker-{self.name}"


AWS: Final = CloudKind(
    name="aws",
    fake="fake-ec2",
    fake_module="lab.fake_ec2",
    port=8773,
    ipam_port=7202,
    account="123456789012",
    region="eu-west-1",
    vpc_cidr="10.0.0.0/16",
    instance_type="m5.large",
    environment={"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab", "AWS_EC2_METADATA_DISABLED": "true"},
)
AZURE: Final = CloudKind(
    name="azure",
    fake="fake-azure",
    fake_module="lab.fake_azure",
    port=8774,
    ipam_port=7212,
    account="00000000-1111-2222-3333-444444444444",
    region="westeurope",
    vpc_cidr="10.1.0.0/16",
    instance_type="Standard_D4s_v5",
    network_arguments=(
        "--network-cidr", "10.1.0.0/16", "--subnet", "nodes=10.1.0.0/20", "--settle-s", "2",
        "--kinds", "single,uniform,flexible",
    ),
)  # fmt: skip
ALIBABA: Final = CloudKind(
    name="alibaba",
    fake="fake-alibaba",
    fake_module="lab.fake_alibaba",
    port=8775,
    ipam_port=7222,
    account="1234567890123456",
    region="eu-central-1",
    vpc_cidr="10.2.0.0/16",
    instance_type="ecs.g6.xlarge",
    network_arguments=("--vpc-cidr", "10.2.0.0/16", "--subnet", "a=10.2.0.0/20", "--settle-s", "2"),
    environment={
        "ALIBABA_CLOUD_ACCESS_KEY_ID": "lab", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "lab",
        "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
    },
)  # fmt: skip
CLOUDS: Final[Mapping[CloudName, CloudKind]] = {"aws": AWS, "azure": AZURE, "alibaba": ALIBABA}


def chosen(choice: Choice) -> tuple[CloudKind, ...]:
    return tuple(CLOUDS.values()) if choice == "all" else (CLOUDS[choice],)
