"""A whole site of real processes for tests and benches: Redis, a fake cloud, its IPAM, workers, and nodes by hand.

    async with Site(folder) as site:
        instance = await site.ec2.launch("m5.large")
        async with site.node("n1", instance) as node:
            await node.until(lambda: len(node.addresses) == 8)

Everything listens on loopback or on Unix sockets in `folder`, speaks mutual TLS where it would in a site, and dies with
the process that made it.

site        Site: what runs, with which settings        processes   children, and waiting for them
node        NodeClient: what a node daemon does         fake        the cloud and its admin endpoint
"""

from lab.site.fake import ACCOUNT, REGION, Fake
from lab.site.node import NodeClient
from lab.site.processes import SiteError, eventually
from lab.site.site import AWS, Site

__all__ = ["ACCOUNT", "AWS", "REGION", "Fake", "NodeClient", "Site", "SiteError", "eventually"]
