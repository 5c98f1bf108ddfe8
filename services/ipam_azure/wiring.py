"""Builds `ipam-azure`."""

from __future__ import annotations

from ipam.providers.azure import AzureProvider
from services.ipam import wiring
from services.ipam_azure.settings import Settings
from services.runtime.lifecycle import Lifecycle


async def build(settings: Settings, life: Lifecycle) -> None:
    await wiring.build("azure", AzureProvider.capabilities, settings, life)
