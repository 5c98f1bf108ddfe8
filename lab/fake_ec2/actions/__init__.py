"""What each call does. Importing this fills the registry.

networks.py       VPCs, subnets, security groups, route tables
interfaces.py     network interfaces, from creation to deletion
attachments.py    attach, detach, attributes
addresses.py      secondary addresses, prefixes, IPv6
elastic_ips.py    public addresses that stay: allocate, associate, release
instances.py      instances, from launch to termination
instance_types.py what types there are
tags.py           tags of everything
describe.py       records as answers
"""

import lab.fake_ec2.actions.addresses
import lab.fake_ec2.actions.attachments
import lab.fake_ec2.actions.elastic_ips
import lab.fake_ec2.actions.instance_types
import lab.fake_ec2.actions.instances
import lab.fake_ec2.actions.interfaces
import lab.fake_ec2.actions.networks
import lab.fake_ec2.actions.tags  # noqa: F401
from lab.fake_ec2.actions.registry import ACTIONS

__all__ = ["ACTIONS"]
