"""AWS: addresses are secondary addresses of elastic network interfaces.

    aws.py           the calls, each made once
    aws_answers.py   what EC2 answers, as the domain's facts
    aws_errors.py    what EC2 refuses, as the domain's errors
    aws_settings.py  what may be set, checked

The SDK does not retry, because who calls does so within the account's budget. It is imported with the first call.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ipam.errors import Gone, Rejected, Throttled, Unavailable
from ipam.model import NO_TAGS, CloudInterface, Instance, Limits, PublicAddress, SecurityGroup, Subnet
from ipam.ports import Capabilities, OperationObserver
from ipam.providers import aws_answers as answers
from ipam.providers.aws_settings import Scope, check
from ipam.providers.incapable import refuse

if TYPE_CHECKING:
    from types_boto3_ec2.client import EC2Client

T = TypeVar("T")

# EC2 takes 200 values in a filter; an instance of that page has some interfaces each.
_INSTANCES_A_PAGE: Final = 200
_INTERFACES_A_PAGE: Final = 500
_ROWS_A_PAGE: Final = 1000
_LONGEST_TOKEN: Final = 64
_LONGEST_DESCRIPTION: Final = 255
_POLL_FIRST_S: Final = 0.05
_POLL_CAP_S: Final = 2.0
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


def _silent(operation: str, outcome: str, seconds: float) -> None:
    """Nobody observes."""


class AwsProvider:
    """CloudProvider of one account and region. Blocking, thread-safe.

    :param endpoint_url: another EC2 than AWS's own, as http://127.0.0.1:4590.
    :param observe: told of each call with its EC2 name.
    :param cluster: name in the SDK's user agent, so that the cloud's own log tells who called.
    :param exclude: interfaces with all these tags carry no pods: they keep their place, without addresses.
    :param scope: what of the account is looked at.
    :param connections: calls that may be under way at a time.
    :param settle_timeout_s: how long an attachment or a detachment may take at the cloud.

    Raises InvalidInput for settings that cannot be.
    """

    capabilities = Capabilities(
        creates_interfaces=True,
        max_addresses_per_call=49,
        max_addresses_on_create=49,
        delete_on_termination=True,
        asynchronous_attach=True,
        prefixes=True,
        ipv6=True,
        ipv6_prefixes=True,
        changes_interfaces=True,
        public_addresses=True,
    )

    def __init__(
        self,
        account: str,
        region: str,
        *,
        endpoint_url: str | None = None,
        observe: OperationObserver | None = None,
        cluster: str = "plimsoll",
        exclude: Mapping[str, str] = NO_TAGS,
        scope: Scope | None = None,
        connections: int = 32,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 30.0,
        settle_timeout_s: float = 30.0,
    ) -> None:
        self._scope = scope or Scope()
        check(account, region, endpoint_url, self._scope, exclude)
        self.account = account
        self.region = region
        self._endpoint_url = endpoint_url
        self._observe = observe or _silent
        self._cluster = cluster
        self._exclude = exclude
        self._connections = connections
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._settle_timeout_s = settle_timeout_s
        self._lock = threading.Lock()
        self._made: EC2Client | None = None

    # reading

    def instance(self, instance_id: str) -> Instance:
        answer = self._call("DescribeInstances", InstanceIds=[instance_id])
        rows = _read("DescribeInstances", answers.live_instances, answer)
        if not rows:
            raise Gone(
                f"instance {instance_id} is terminated",
                code="InvalidInstanceID.Terminated",
                operation="DescribeInstances",
                remedy="remove the node, or correct its instance id",
            )
        return _read("DescribeInstances", answers.instance, rows[0], self._interfaces_of([instance_id]))

    def inventory(self) -> Iterator[tuple[Sequence[Instance], Sequence[CloudInterface]]]:
        """An instance's interfaces are listed with the page that holds it, so no more than one page is in memory."""
        filters = {"instance-state-name": answers.LIVE_STATES, **self._in_vpcs(), **_tagged(self._scope.instance_tags)}
        for answer in self._pages("DescribeInstances", _INSTANCES_A_PAGE, filters):
            rows = _read("DescribeInstances", answers.live_instances, answer)
            interfaces = self._interfaces_of(_read("DescribeInstances", answers.ids, rows))
            yield _read("DescribeInstances", answers.joined, rows, interfaces), ()
        for detached in self._interfaces({"status": ["available"], **self._in_vpcs()}):
            yield (), [each for each in detached if each.status == "available"]

    def subnets(self) -> Sequence[Subnet]:
        """Those with a range of IPv4."""
        networks = self._vpcs()
        filters = {**self._in_vpcs(), **_tagged(self._scope.subnet_tags)}
        rows = self._rows("DescribeSubnets", "Subnets", filters)
        rows = [row for row in rows if not _read("DescribeSubnets", answers.is_ipv6_only, row)]
        found = [_read("DescribeSubnets", answers.subnet, row, networks) for row in rows]
        return [each for each in found if each.vpc_id in networks]

    def security_groups(self) -> Sequence[SecurityGroup]:
        filters = {**self._in_vpcs(), **_tagged(self._scope.security_group_tags)}
        rows = self._rows("DescribeSecurityGroups", "SecurityGroups", filters)
        return [_read("DescribeSecurityGroups", answers.security_group, row) for row in rows]

    def limits(self, instance_type: str) -> Limits:
        answer = self._call("DescribeInstanceTypes", InstanceTypes=[instance_type])
        rows = _read("DescribeInstanceTypes", answers.rows, answer, "InstanceTypes")
        for row in rows:
            found = _read("DescribeInstanceTypes", answers.limits, row)
            if found.instance_type == instance_type:
                return found
        raise Rejected(
            f"no instance type {instance_type!r}",
            code="InvalidInstanceType",
            operation="DescribeInstanceTypes",
            remedy="check the instance type's name, or give its limits in the override",
        )

    # changing

    def create_interface(
        self,
        *,
        subnet_id: str,
        security_group_ids: Sequence[str],
        secondary_count: int,
        tags: Mapping[str, str],
        description: str,
        client_token: str,
        prefix_count: int = 0,
        ipv6_count: int = 0,
        ipv6_prefix_count: int = 0,
        delete_on_termination: bool = False,
    ) -> CloudInterface:
        if delete_on_termination:  # EC2 says it of an attachment, and there is none yet
            refuse("interfaces that are created to go with their instance")
        counts = {
            "SecondaryPrivateIpAddressCount": secondary_count, "Ipv4PrefixCount": prefix_count,
            "Ipv6AddressCount": ipv6_count, "Ipv6PrefixCount": ipv6_prefix_count,
        }  # fmt: skip
        asked: dict[str, Any] = {"SubnetId": subnet_id, "Description": description[:_LONGEST_DESCRIPTION]}
        if security_group_ids:
            asked["Groups"] = list(security_group_ids)
        asked |= {name: count for name, count in counts.items() if count}
        if tags:
            asked["TagSpecifications"] = [{"ResourceType": "network-interface", "Tags": _tag_rows(tags)}]
        if client_token:
            asked["ClientToken"] = _token(client_token)
        answer = self._call("CreateNetworkInterface", subnet_id, **asked)
        return _read("CreateNetworkInterface", self._interface, answer.get("NetworkInterface"))

    def attach_interface(
        self, *, interface_id: str, instance_id: str, device_index: int, network_card: int
    ) -> CloudInterface:
        asked = {"InstanceId": instance_id, "NetworkInterfaceId": interface_id, "DeviceIndex": device_index}
        if network_card:
            asked["NetworkCardIndex"] = network_card
        answer = self._call("AttachNetworkInterface", **asked)
        attachment_id = _read("AttachNetworkInterface", _text, answer, "AttachmentId")
        return self._until(
            "AttachNetworkInterface",
            interface_id,
            lambda found: found.attachment_id == attachment_id and found.status not in ("attaching", "pending"),
        )

    def protect_interface(self, *, interface_id: str, attachment_id: str) -> None:
        attachment = {"AttachmentId": attachment_id, "DeleteOnTermination": True}
        self._call("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=interface_id, Attachment=attachment)

    def assign_addresses(self, *, interface_id: str, count: int, client_token: str = "") -> Sequence[str]:
        """EC2 knows no tokens here: who repeats the call reads the interface first."""
        operation = "AssignPrivateIpAddresses"
        answer = self._call(operation, NetworkInterfaceId=interface_id, SecondaryPrivateIpAddressCount=count)
        return _read(operation, answers.assigned, answer)

    def unassign_addresses(self, *, interface_id: str, addresses: Sequence[str]) -> None:
        if addresses:
            self._call(
                "UnassignPrivateIpAddresses", NetworkInterfaceId=interface_id, PrivateIpAddresses=list(addresses)
            )

    def assign_prefixes(self, *, interface_id: str, count: int, client_token: str = "") -> Sequence[str]:
        operation = "AssignPrivateIpAddresses"
        answer = self._call(operation, NetworkInterfaceId=interface_id, Ipv4PrefixCount=count)
        return _read(operation, answers.assigned_prefixes, answer)

    def unassign_prefixes(self, *, interface_id: str, prefixes: Sequence[str]) -> None:
        if prefixes:
            self._call("UnassignPrivateIpAddresses", NetworkInterfaceId=interface_id, Ipv4Prefixes=list(prefixes))

    def assign_ipv6(self, *, interface_id: str, count: int) -> Sequence[str]:
        answer = self._call("AssignIpv6Addresses", NetworkInterfaceId=interface_id, Ipv6AddressCount=count)
        return _read("AssignIpv6Addresses", answers.assigned6, answer)

    def unassign_ipv6(self, *, interface_id: str, addresses: Sequence[str]) -> None:
        if addresses:
            self._call("UnassignIpv6Addresses", NetworkInterfaceId=interface_id, Ipv6Addresses=list(addresses))

    def assign_ipv6_prefixes(self, *, interface_id: str, count: int) -> Sequence[str]:
        answer = self._call("AssignIpv6Addresses", NetworkInterfaceId=interface_id, Ipv6PrefixCount=count)
        return _read("AssignIpv6Addresses", answers.assigned_prefixes6, answer)

    def unassign_ipv6_prefixes(self, *, interface_id: str, prefixes: Sequence[str]) -> None:
        if prefixes:
            self._call("UnassignIpv6Addresses", NetworkInterfaceId=interface_id, Ipv6Prefixes=list(prefixes))

    def set_security_groups(self, *, interface_id: str, security_group_ids: Sequence[str]) -> None:
        groups = list(security_group_ids)
        self._call("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=interface_id, Groups=groups)

    def set_tags(self, *, interface_id: str, tags: Mapping[str, str]) -> None:
        if tags:
            self._call("CreateTags", Resources=[interface_id], Tags=_tag_rows(tags))

    def public_addresses(self, *, tags: Mapping[str, str]) -> Sequence[PublicAddress]:
        filters = [{"Name": name, "Values": values} for name, values in _tagged(tags).items()]
        answer = self._call("DescribeAddresses", **({"Filters": filters} if filters else {}))
        return _read("DescribeAddresses", answers.public_addresses, answer)

    def associate_public_address(self, *, public_address_id: str, interface_id: str) -> None:
        """EC2 answers a repeated association with the same interface as the first."""
        self._call(
            "AssociateAddress", AllocationId=public_address_id, NetworkInterfaceId=interface_id,
            AllowReassociation=False,
        )  # fmt: skip

    def detach_interface(self, *, attachment_id: str, interface_id: str) -> None:
        """Returns when detached."""
        self._call("DetachNetworkInterface", AttachmentId=attachment_id)
        self._until("DetachNetworkInterface", interface_id, lambda found: found.attachment_id != attachment_id)

    def delete_interface(self, *, interface_id: str) -> None:
        self._call("DeleteNetworkInterface", NetworkInterfaceId=interface_id)

    # inside

    def _until(self, operation: str, interface_id: str, reached: Callable[[CloudInterface], bool]) -> CloudInterface:
        """Reads the interface until it is as wanted. Reads may lag behind, even say that there is no such interface.

        Raises Unavailable when that takes too long: the call itself has taken effect.
        """
        deadline = time.monotonic() + self._settle_timeout_s
        pause_s = _POLL_FIRST_S
        while True:
            seen = "it was not seen"
            try:
                answer = self._call("DescribeNetworkInterfaces", NetworkInterfaceIds=[interface_id])
                found = _read("DescribeNetworkInterfaces", self._only, answer)
                if reached(found):
                    return found
                seen = f"it is {found.status}"
            except (Gone, Throttled, Unavailable) as error:
                seen = error.message
            if time.monotonic() + pause_s > deadline:
                raise Unavailable(
                    f"{operation}: {interface_id} has not got there within {self._settle_timeout_s:g} s: {seen}",
                    code="NotSettled",
                    operation=operation,
                    remedy="read the instance again: the call has taken effect, or will",
                    retry_after_s=_POLL_CAP_S,
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.6, _POLL_CAP_S)

    def _interface(self, row: answers.Answer) -> CloudInterface:
        return answers.interface(row, self._exclude)

    def _listed(self, answer: answers.Answer) -> list[CloudInterface]:
        return [self._interface(row) for row in answer["NetworkInterfaces"]]

    def _only(self, answer: answers.Answer) -> CloudInterface:
        return self._listed(answer)[0]

    def _interfaces_of(self, instance_ids: Sequence[str]) -> list[CloudInterface]:
        if not instance_ids:
            return []
        return [each for page in self._interfaces({"attachment.instance-id": instance_ids}) for each in page]

    def _interfaces(self, filters: Mapping[str, Sequence[str]]) -> Iterator[list[CloudInterface]]:
        for answer in self._pages("DescribeNetworkInterfaces", _INTERFACES_A_PAGE, filters):
            yield _read("DescribeNetworkInterfaces", self._listed, answer)

    def _vpcs(self) -> dict[str, tuple[str, ...]]:
        """CIDRs by VPC, of those in scope."""
        rows = self._rows("DescribeVpcs", "Vpcs", {**self._in_vpcs(), **_valued("cidr", self._scope.vpc_cidrs)})
        return dict(_read("DescribeVpcs", answers.vpc, row) for row in rows)

    def _in_vpcs(self) -> dict[str, Sequence[str]]:
        return _valued("vpc-id", self._scope.vpc_ids)

    def _rows(self, operation: str, key: str, filters: Mapping[str, Sequence[str]]) -> list[answers.Answer]:
        pages = self._pages(operation, _ROWS_A_PAGE, filters)
        return [row for answer in pages for row in _read(operation, answers.rows, answer, key)]

    def _pages(self, operation: str, size: int, filters: Mapping[str, Sequence[str]]) -> Iterator[answers.Answer]:
        asked: dict[str, Any] = {"MaxResults": size}
        if filters:
            asked["Filters"] = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
        while True:
            answer = self._call(operation, **asked)
            yield answer
            token = answer.get("NextToken")
            if not token or token == asked.get("NextToken"):
                return
            asked["NextToken"] = token

    def _call(self, operation: str, subnet_id: str = "", /, **asked: Any) -> answers.Answer:
        """One call. Raises CloudError."""
        from botocore import xform_name

        from ipam.providers.aws_errors import translate

        started = time.monotonic()
        outcome = "ok"
        try:
            answer: answers.Answer = dict(getattr(self._client(), xform_name(operation))(**asked))
        except Exception as error:
            # The SDK raises what it likes for an answer that is garbage; callers know CloudError only.
            failure = translate(error, operation, subnet_id=subnet_id)
            outcome = failure.code
            raise failure from error
        finally:
            self._observe(operation, outcome, time.monotonic() - started)
        return answer

    def _client(self) -> EC2Client:
        with self._lock:
            if self._made is None:
                self._made = self._make_client()
            return self._made

    def _make_client(self) -> EC2Client:
        from boto3.session import Session
        from botocore.config import Config

        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=self._connect_timeout_s,
            read_timeout=self._read_timeout_s,
            max_pool_connections=self._connections,
            tcp_keepalive=True,
            user_agent_extra=f"plimsoll/{self._cluster}",
        )
        return Session().client("ec2", region_name=self.region, endpoint_url=self._endpoint_url, config=config)


def _read(operation: str, read: Callable[..., T], *given: Any) -> T:
    """What `read` makes of an answer. Raises Unavailable when the answer is not what EC2 gives."""
    try:
        return read(*given)
    except _MALFORMED as error:
        from ipam.providers.aws_errors import malformed

        raise malformed(operation, error) from error


def _text(row: answers.Answer, key: str) -> str:
    return str(row[key])


def _tag_rows(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _valued(name: str, values: Sequence[str]) -> dict[str, Sequence[str]]:
    return {name: values} if values else {}


def _tagged(tags: Mapping[str, str]) -> dict[str, Sequence[str]]:
    return {f"tag:{key}": [value] for key, value in tags.items()}


def _token(client_token: str) -> str:
    """EC2 takes 64 characters; a longer token is replaced by its digest."""
    if len(client_token) <= _LONGEST_TOKEN:
        return client_token
    return hashlib.sha256(client_token.encode()).hexdigest()


__all__ = ["AwsProvider", "Scope"]
