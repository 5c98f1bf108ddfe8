"""Workloads that come with the simulator, each with settings to compare: so that it says something before a file is
written, and as a beginning for files of one's own (`plimsoll ipam simulate --example web --print`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ipam.simulation.model import Variant, Workload
from ipam.simulation.variants import parse_variants
from ipam.simulation.workload import parse_workload

WEB: Final = """\
# Services of a company: few pods come and go by day, and each node has a rollout a day or two.
cloud = "aws"
hours = 24
measure_from_hours = 2      # nodes fill, and forecasts learn; not counted

[[group]]
name = "web"
type = "m5.4xlarge"
nodes = 1000
zones = ["a", "b", "c"]
join_over_s = 3600

[[group.pods]]
name = "services"
standing = 12

[[group.pods]]
name = "scaled"             # by an autoscaler, with the hours of the day (UTC)
per_minute = 0.1
lifetime_s = 5400
day = [2, 1, 1, 1, 1, 2, 4, 6, 8, 10, 10, 10, 10, 10, 10, 10, 9, 8, 7, 6, 5, 4, 3, 2]

[[group.pods]]
name = "rollouts"
burst_size = 3
burst_every_s = 43200
burst_spread_s = 30
lifetime_s = 28800
"""
BATCH: Final = """\
# Jobs: pods of some minutes that start in groups, on nodes that are busy all day.
cloud = "aws"
hours = 12
measure_from_hours = 2

[[group]]
name = "batch"
type = "m5.4xlarge"
nodes = 200
zones = ["a", "b"]
join_over_s = 600

[[group.pods]]
name = "tasks"
per_minute = 1.5
lifetime_s = 600

[[group.pods]]
name = "jobs"
burst_size = 14
burst_every_s = 1800
burst_spread_s = 2
lifetime_s = 900
"""
CRON: Final = """\
# Cron jobs at the full hour on all nodes at once, between them next to nothing.
cloud = "aws"
hours = 24
measure_from_hours = 5

[[group]]
name = "cron"
type = "m5.2xlarge"
nodes = 100
join_over_s = 600

[[group.pods]]
name = "services"
standing = 5

[[group.pods]]
name = "hourly"
burst_size = 6
burst_every_s = 3600
burst_spread_s = 20
together = true
lifetime_s = 300
"""
SETTINGS: Final = """\
[[variant]]
name = "fixed"              # the defaults
watermarks = { pre_allocate = 8 }

[[variant]]
name = "demand"
watermarks = { pre_allocate = 8 }
policy = { follow_demand = true }
"""
EXAMPLES: Final[Mapping[str, str]] = {"web": WEB, "batch": BATCH, "cron": CRON}


def example(name: str) -> Workload:
    """One of EXAMPLES; raises KeyError for another name."""
    return parse_workload(EXAMPLES[name], name)


def example_variants() -> list[Variant]:
    return parse_variants(SETTINGS, "example")
