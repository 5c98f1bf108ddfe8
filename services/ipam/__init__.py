"""The IPAM service of one cloud account and region: watches nodes, journals intents, tells nodes their pools.

Each cloud has its process (`services.ipam_aws` ...), which adds what is that cloud's own: settings, and what its
provider can do.

The map:

    settings         what can be set for every cloud
    wiring           builds the service: store and queue below, the domain, the gRPC server on top
    handlers         IpamService: nodes watch their own pool, people look and explain
    work_handlers    IpamWorkService: what workers call
    topics           what each node is told
    reports          what nodes say, checked and bounded
    convert, pages   views of the domain as messages; pages of listings
    metrics          what Prometheus is told
"""
