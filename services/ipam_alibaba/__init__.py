"""The IPAM service of one Alibaba Cloud account and region.

The map:

    settings    how Alibaba Cloud names accounts, regions and resources; the rest is services.ipam's
    wiring      hands services.ipam what the provider can do
"""
