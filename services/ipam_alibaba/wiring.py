"""Builds `ipam-alibaba`."""

from __future__ import annotations

from ipam.providers.alibaba import AlibabaProvider
from services.ipam import wiring
from services.ipam_alibaba.settings import Settings
from services.runtime.lifecycle import Lifecycle


async def build(settings: Settings, life: Lifecycle) -> None:
    await wiring.build("alibaba", AlibabaProvider.capabilities, settings, life)
