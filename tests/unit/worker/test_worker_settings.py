"""What a worker may be told, and what it says of a value that cannot be."""

from __future__ import annotations

import pytest

from services.runtime.settings import SettingsError, load
from services.worker.buckets import Rate
from services.worker.settings import Settings

PLACE = ["--account", "123456789012", "--region", "eu-west-1", "--ipam", "unix:/run/plimsoll/ipam.sock"]


def settings(*argv: str, environ: dict[str, str] | None = None) -> Settings:
    return load(Settings, [*PLACE, *argv], environ=environ or {})


def test_the_budget_is_a_rate_and_a_burst_per_class_and_in_total() -> None:
    chosen = settings("--budget.mutate-per-s", "5", "--budget.mutate-burst", "2", "--budget.cut-factor", "0.7")
    limits = chosen.budget.limits()
    assert (limits.mutate, limits.read, limits.total) == (Rate(5, 2), Rate(20, 40), Rate(25, 50))
    assert limits.cut_factor == 0.7


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--budget.mutate-per-s", "0"], ["budget.mutate_per_s", "0"]),
        (["--budget.mutate-burst", "0.5"], ["budget.mutate_burst", "0.5"]),
        (["--budget.cut-factor", "1"], ["budget.cut_factor", "1"]),
        (["--threads", "0"], ["threads", "0"]),
        (["--endpoint-url", "127.0.0.1:80"], ["endpoint_url", "127.0.0.1:80", "http://host:port"]),
        (["--scope.vpc-cidrs", "10.0.0.0/33"], ["scope.vpc_cidrs", "10.0.0.0/33", "10.0.0.0/16"]),
        (["--scope.vpc-cidrs", "10.0.0.1/16"], ["scope.vpc_cidrs", "host bits"]),
        (["--scope.vpc-ids", "subnet-1"], ["scope.vpc_ids", "subnet-1", "vpc-"]),
        (["--cloud", "mars"], ["cloud", "mars", "aws"]),
        (["--ipam", "10.0.0.5:7202"], ["ipam", "tls"]),
    ],
)
def test_a_bad_value_is_named(argv: list[str], words: list[str]) -> None:
    with pytest.raises(SettingsError) as refusal:
        settings(*argv)
    for word in words:
        assert word in str(refusal.value)
