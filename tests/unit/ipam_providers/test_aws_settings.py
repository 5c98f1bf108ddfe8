"""Settings for AWS that cannot be name the field and what to write instead; nothing is called for that."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from ipam.errors import InvalidInput
from ipam.providers.aws import AwsProvider, Scope

GOOD: dict[str, Any] = {"account": "123456789012", "region": "eu-central-1"}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"account": "1234"}, "account"),
        ({"account": "12345678901x"}, "account"),
        ({"region": ""}, "region"),
        ({"region": "Frankfurt"}, "region"),
        ({"endpoint_url": "127.0.0.1:4590"}, "endpoint_url"),
        ({"endpoint_url": "http://"}, "endpoint_url"),
        ({"endpoint_url": "http://host:port"}, "endpoint_url"),
        ({"scope": Scope(vpc_ids=["subnet-01234567"])}, "vpc_ids"),
        ({"scope": Scope(vpc_ids=["vpc-xyz"])}, "vpc_ids"),
        ({"scope": Scope(vpc_cidrs=["10.0.0.1/16"])}, "vpc_cidrs"),
        ({"scope": Scope(vpc_cidrs=["10.0.0.0/33"])}, "vpc_cidrs"),
        ({"scope": Scope(subnet_tags={"": "x"})}, "subnet_tags"),
        ({"scope": Scope(instance_tags={" a": "x"})}, "instance_tags"),
        ({"scope": Scope(security_group_tags={"k": "v" * 257})}, "security_group_tags"),
        ({"exclude": {"k" * 129: ""}}, "exclude"),
    ],
)
def test_a_bad_setting_is_named_with_a_remedy(more: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        AwsProvider(**{**GOOD, **more})
    assert refused.value.field == field
    assert refused.value.remedy


@pytest.mark.parametrize("region", ["us-gov-west-1", "ap-southeast-2", "cn-north-1"])
def test_regions_of_every_partition_are_taken(region: str) -> None:
    AwsProvider("123456789012", region, scope=Scope(vpc_ids=["vpc-0123456789abcdef0"], vpc_cidrs=["10.0.0.0/8"]))


def test_the_sdk_is_imported_by_the_first_call_only() -> None:
    import subprocess

    words = "import sys, ipam.providers.aws as a; a.AwsProvider('123456789012', 'eu-central-1'); "
    words += "sys.exit(any(each in sys.modules for each in ('boto3', 'botocore')))"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0
