"""The IPAM service of one Azure subscription and location.

The map:

    settings    how Azure names subscriptions, locations and resources; the rest is services.ipam's
    wiring      hands services.ipam what the provider can do
"""
