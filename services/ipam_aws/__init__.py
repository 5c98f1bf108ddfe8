"""The IPAM service of one AWS account and region.

The map:

    settings    how AWS names accounts, regions and resources; the rest is services.ipam's
    wiring      hands services.ipam what the provider can do
"""
