"""Builds `ipam-aws`."""

from __future__ import annotations

from ipam.providers.aws import AwsProvider
from services.ipam import wiring
from services.ipam_aws.settings import Settings
from services.runtime.lifecycle import Lifecycle


async def build(settings: Settings, life: Lifecycle) -> None:
    await wiring.build("aws", AwsProvider.capabilities, settings, life)
