"""What each call does. Importing this fills the registry.

networks.py       VPCs, vSwitches, security groups
interfaces.py     network interfaces: create, describe, modify, delete
attachments.py    attach, detach
addresses.py      secondary addresses and prefixes
eips.py           elastic IPs: allocate, describe, associate, release
instances.py      instances, from launch to deletion, and what types there are
tags.py           tags of everything
describe.py       records as answers
"""

import lab.fake_alibaba.actions.addresses
import lab.fake_alibaba.actions.attachments
import lab.fake_alibaba.actions.eips
import lab.fake_alibaba.actions.instances
import lab.fake_alibaba.actions.interfaces
import lab.fake_alibaba.actions.networks
import lab.fake_alibaba.actions.tags  # noqa: F401
from lab.fake_alibaba.actions.registry import ACTIONS

__all__ = ["ACTIONS"]
