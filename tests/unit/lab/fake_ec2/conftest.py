"""A cloud whose time the test owns, and one call of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lab.fake_ec2.actions import ACTIONS
from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.seed import Seed, plant


class Region:
    """`call` performs an action; `now` is the cloud's time."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        seed = Seed.model_validate(
            {
                "vpc": [
                    {
                        "ipv6": True,
                        "subnets": [
                            {"zone": "a", "cidr": "10.0.0.0/24", "tags": {"tier": "pods"}},
                            {"zone": "b", "cidr": "10.0.1.0/28"},
                        ],
                        "security_groups": [{"name": "nodes"}],
                    }
                ]
            }
        )
        self.cloud = Cloud(account=seed.account, region=seed.region, seed=3, clock=lambda: self.now)
        plant(self.cloud, seed)
        self.subnet_id, self.small_subnet_id = self.cloud.subnets.current

    def call(self, action: str, **parameters: Any) -> Any:
        self.cloud.settle()
        return ACTIONS[action].perform(self.cloud, parameters)

    def create(self, **more: Any) -> str:
        answer = self.call("CreateNetworkInterface", **{"SubnetId": self.subnet_id, **more})
        return str(answer["NetworkInterface"]["NetworkInterfaceId"])

    def launch(self, type_: str = "m5.large", **more: Any) -> str:
        asked = {"ImageId": "ami-1", "MinCount": 1, "MaxCount": 1, "InstanceType": type_, "SubnetId": self.subnet_id}
        return str(self.call("RunInstances", **{**asked, **more})["Instances"][0]["InstanceId"])

    def listed(self, **asked: Any) -> set[str]:
        """Ids that DescribeNetworkInterfaces tells."""
        self.cloud.settle()
        kept = ACTIONS["DescribeNetworkInterfaces"].perform(self.cloud, asked)["NetworkInterfaces"]
        return {each.partition("<networkInterfaceId>")[2].partition("<")[0] for each in kept}

    def filtered(self, name: str, *values: str) -> set[str]:
        return self.listed(Filters=[{"Name": name, "Values": list(values)}])


@pytest.fixture
def region() -> Region:
    return Region()


@pytest.fixture
def refused() -> Callable[..., Any]:
    """Expects an ApiError with this code."""
    from lab.fake_ec2.errors import ApiError

    def expect(code: str) -> Any:
        return pytest.raises(ApiError, check=lambda error: error.code == code)

    return expect
