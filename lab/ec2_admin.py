"""Client of the fake EC2: the admin endpoint that all fakes have, and calls of EC2's own API."""

from __future__ import annotations

from lab.cloud_admin import CloudAdmin, CloudRefused


class Ec2Admin(CloudAdmin):
    """Speaks to the fake EC2."""

    async def call(self, action: str, **parameters: str) -> str:
        """Makes a call of the EC2 API itself, as somebody else in the account would; returns the XML.

        Dots in names are written as two underscores: TagSpecification__1__ResourceType.
        """
        fields = {"Action": action, "Version": "2016-11-15"}
        fields |= {name.replace("__", "."): value for name, value in parameters.items()}
        async with self.session.post(self.base.removesuffix("_admin"), data=fields) as response:
            text = await response.text()
        if not response.ok:
            raise CloudRefused(f"{action}: {text}")
        return text
