"""Alibaba Cloud: addresses are secondary addresses and /28 prefixes of elastic network interfaces (ENI).

    alibaba.py           the calls, each made once
    alibaba_client.py    the SDK's clients of ECS and VPC
    alibaba_answers.py   what ECS and VPC answer, as the domain's facts
    alibaba_errors.py    what they refuse, as the domain's errors
    alibaba_settings.py  what may be set, checked

The SDK's synchronous client is used by the caller's threads. It does not retry, because who calls does so within the
account's budget. It is imported with the first call, which takes a second.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ipam.errors import Conflict, Gone, InProgress, Rejected, Throttled, Unavailable
from ipam.model import NO_TAGS, CloudInterface, Instance, Limits, PublicAddress, SecurityGroup, Subnet
from ipam.ports import Capabilities, OperationObserver
from ipam.providers import alibaba_answers as answers
from ipam.providers.alibaba_settings import Scope, check
from ipam.providers.incapable import Incapable

if TYPE_CHECKING:
    from ipam.providers.alibaba_client import Client

T = TypeVar("T")

_INSTANCES_A_PAGE: Final = 100
_INTERFACES_A_PAGE: Final = 500
_GROUPS_A_PAGE: Final = 100
_ROWS_A_PAGE: Final = 50  # of the VPC API
_PREFIXES_A_CALL: Final = 10
_LONGEST_TOKEN: Final = 64
_LONGEST_DESCRIPTION: Final = 255
_POLL_FIRST_S: Final = 0.1  # doubles
_IN_PROGRESS_S: Final = 2.0  # ECS takes 2 to 5 s to attach or detach
_MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


def _silent(operation: str, outcome: str, seconds: float) -> None:
    """Nobody observes."""


class AlibabaProvider(Incapable):
    """CloudProvider of one account and region. Blocking, thread-safe. IPv6 is left alone.

    :param endpoint_url: another server than the cloud's own, for both ECS and VPC, as http://127.0.0.1:4591.
    :param observe: told of each call with its name at the cloud.
    :param cluster: name in the SDK's user agent, so that the cloud's own log tells who called.
    :param exclude: interfaces with all these tags carry no pods: they keep their place, without addresses.
    :param scope: what of the account is looked at.
    :param connections: calls that may be under way at a time.
    :param settle_s: how long a call waits for its attachment or detachment before it says InProgress.

    Raises InvalidInput for settings that cannot be.
    """

    capabilities = Capabilities(
        creates_interfaces=True,
        max_addresses_per_call=10,
        max_addresses_on_create=10,
        delete_on_termination=True,
        asynchronous_attach=True,
        prefixes=True,
        assign_tokens=True,
        changes_interfaces=True,
        public_addresses=True,
        protects_on_create=True,
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
        settle_s: float = 1.0,
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
        self._settle_s = settle_s
        self._lock = threading.Lock()
        self._made: Client | None = None

    # reading

    def instance(self, instance_id: str) -> Instance:
        operation = "DescribeInstances"
        answer = self._call(operation, InstanceIds=json.dumps([instance_id]))
        rows = _read(operation, answers.live_instances, answer)
        if not rows:
            raise Gone(
                f"{operation}: there is no instance {instance_id}",
                code="InvalidInstanceId.NotFound",
                operation=operation,
                remedy="remove the node, or correct its instance id",
            )
        return _read(operation, answers.instance, rows[0], self._interfaces_of(instance_id))

    def inventory(self) -> Iterator[tuple[Sequence[Instance], Sequence[CloudInterface]]]:
        """ECS lists the interfaces of one instance or of all, so all are read first: some ten calls for thousands of
        nodes instead of one for each. An instance that has come meanwhile is asked for its own."""
        interfaces = [each for page in self._interfaces() for each in page if self._in_scope(each.vpc_id)]
        attached = answers.by_instance(interfaces)
        for answer in self._pages("DescribeInstances", _INSTANCES_A_PAGE, **self._in_vpc()):
            page = []
            for row in _read("DescribeInstances", answers.live_instances, answer):
                instance = _read("DescribeInstances", answers.instance, row, ())
                if not self._in_scope(instance.vpc_id) or not _tagged(instance.tags, self._scope.instance_tags):
                    continue
                own = attached.get(instance.id) or self._interfaces_of(instance.id)
                page.append(_read("DescribeInstances", answers.instance, row, own))
            yield page, ()
        yield (), [each for each in interfaces if each.status == "available" and not each.instance_id]

    def subnets(self) -> Sequence[Subnet]:
        networks = self._vpcs()
        rows = self._numbered_pages("DescribeVSwitches", "VSwitches", "VSwitch", "VSwitchId", **self._in_vpc())
        found = [_read("DescribeVSwitches", answers.subnet, row, networks) for row in rows]
        return [each for each in found if each.vpc_id in networks and _tagged(each.tags, self._scope.subnet_tags)]

    def security_groups(self) -> Sequence[SecurityGroup]:
        operation = "DescribeSecurityGroups"
        pages = self._pages(operation, _GROUPS_A_PAGE, **self._in_vpc())
        names = ("SecurityGroups", "SecurityGroup")
        rows = (row for answer in pages for row in _read(operation, answers.rows, answer, *names))
        found = [_read(operation, answers.security_group, row) for row in rows]
        wanted = self._scope.security_group_tags
        return [each for each in found if self._in_scope(each.vpc_id) and _tagged(each.tags, wanted)]

    def limits(self, instance_type: str) -> Limits:
        operation = "DescribeInstanceTypes"
        answer = self._call(operation, InstanceTypes=[instance_type])
        for row in _read(operation, answers.rows, answer, "InstanceTypes", "InstanceType"):
            found = _read(operation, answers.limits, row)
            if found.instance_type == instance_type:
                return found
        raise Rejected(
            f"no instance type {instance_type!r}",
            code="InvalidInstanceType.NotFound",
            operation=operation,
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
        if ipv6_count or ipv6_prefix_count:
            self.assign_ipv6(interface_id="", count=ipv6_count)  # refuses
        operation = "CreateNetworkInterface"
        asked: dict[str, Any] = {
            "VSwitchId": subnet_id,
            "SecurityGroupIds": list(security_group_ids),
            "Description": description[:_LONGEST_DESCRIPTION] or None,
            "SecondaryPrivateIpAddressCount": secondary_count or None,
            "Ipv4PrefixCount": prefix_count or None,
            "DeleteOnRelease": delete_on_termination,  # the cloud's own default is to delete it
            "Tag": _tag_rows(tags) or None,
            "ClientToken": _token(client_token),
        }
        answer = self._call(operation, subnet_id, prefixes=bool(prefix_count), **asked)
        made = _read(operation, answers.interface, answer, self._exclude)
        made = replace(made, delete_on_termination=delete_on_termination)  # which this answer does not tell

        def created() -> CloudInterface | None:
            found = self._interface(made.id)
            return None if found.status in answers.UNBORN else found

        # Until it is there it cannot be attached, which then says so: nobody need know it here.
        with contextlib.suppress(InProgress):
            return made if made.status not in answers.UNBORN else self._until(operation, made.id, created)
        return made

    def attach_interface(
        self, *, interface_id: str, instance_id: str, device_index: int, network_card: int
    ) -> CloudInterface:
        """ECS numbers no devices: `device_index` is what comes of the order of creation. Raises InProgress when the
        interface is not there within `settle_s`: a later read shows it, with status "attaching" until it is. So it does
        for one that is on its way to this instance already, or that is still being created."""
        operation = "AttachNetworkInterface"
        asked: dict[str, Any] = {"InstanceId": instance_id, "NetworkInterfaceId": interface_id}
        try:
            self._call(operation, **asked, NetworkCardIndex=network_card or None)
        except Conflict as refusal:
            found = self._interface(interface_id)
            if found.status in answers.UNBORN:
                raise _in_progress(operation, interface_id) from refusal
            if found.status != answers.ATTACHING or found.instance_id not in ("", instance_id):
                raise

        def attached() -> CloudInterface | None:
            found = next((each for each in self._interfaces_of(instance_id) if each.id == interface_id), None)
            return found if found and found.status in (answers.ATTACHED, answers.EXCLUDED) else None

        return self._until(operation, interface_id, attached)

    def protect_interface(self, *, interface_id: str, attachment_id: str) -> None:
        self._call("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=interface_id, DeleteOnRelease=True)

    def assign_addresses(self, *, interface_id: str, count: int, client_token: str = "") -> Sequence[str]:
        operation = "AssignPrivateIpAddresses"
        asked: dict[str, Any] = {"NetworkInterfaceId": interface_id, "SecondaryPrivateIpAddressCount": count}
        return _read(operation, answers.assigned, self._call(operation, **asked, ClientToken=_token(client_token)))

    def unassign_addresses(self, *, interface_id: str, addresses: Sequence[str]) -> None:
        if addresses:
            asked: dict[str, Any] = {"NetworkInterfaceId": interface_id, "PrivateIpAddress": list(addresses)}
            self._call("UnassignPrivateIpAddresses", **asked)

    def assign_prefixes(self, *, interface_id: str, count: int, client_token: str = "") -> Sequence[str]:
        operation = "AssignPrivateIpAddresses"
        asked: dict[str, Any] = {
            "NetworkInterfaceId": interface_id,
            "Ipv4PrefixCount": count,
            "ClientToken": _token(client_token),
        }
        return _read(operation, answers.assigned_prefixes, self._call(operation, prefixes=True, **asked))

    def unassign_prefixes(self, *, interface_id: str, prefixes: Sequence[str]) -> None:
        """ECS takes ten a call: of more, the first may be gone when a later call is refused."""
        for start in range(0, len(prefixes), _PREFIXES_A_CALL):
            part = list(prefixes[start : start + _PREFIXES_A_CALL])
            self._call("UnassignPrivateIpAddresses", NetworkInterfaceId=interface_id, Ipv4Prefix=part)

    def set_security_groups(self, *, interface_id: str, security_group_ids: Sequence[str]) -> None:
        asked: dict[str, Any] = {"NetworkInterfaceId": interface_id, "SecurityGroupId": list(security_group_ids)}
        self._call("ModifyNetworkInterfaceAttribute", **asked)

    def set_tags(self, *, interface_id: str, tags: Mapping[str, str]) -> None:
        if tags:
            self._call("TagResources", ResourceType="eni", ResourceId=[interface_id], Tag=_tag_rows(tags))

    def public_addresses(self, *, tags: Mapping[str, str]) -> Sequence[PublicAddress]:
        """Elastic IPs. Those of primary interfaces are told as the instances', which are read by the hundred."""
        operation = "DescribeEipAddresses"
        asked = {"Tag": _tag_rows(tags) or None}
        rows = self._numbered_pages(operation, "EipAddresses", "EipAddress", "AllocationId", **asked)
        holders = sorted({str(row.get("InstanceId")) for row in rows if row.get("InstanceType") == "EcsInstance"})
        primary_of: dict[str, str] = {}
        for start in range(0, len(holders), _INSTANCES_A_PAGE):
            page = json.dumps(holders[start : start + _INSTANCES_A_PAGE])
            answer = self._call("DescribeInstances", InstanceIds=page, MaxResults=_INSTANCES_A_PAGE)
            primary_of |= _read("DescribeInstances", answers.primary_interfaces, answer)
        return _read(operation, answers.public_addresses, rows, primary_of)

    def associate_public_address(self, *, public_address_id: str, interface_id: str) -> None:
        """An elastic IP of a primary interface is bound to the instance, as the cloud wants it."""
        interface = self._interface(interface_id)
        own = not interface.device_index and interface.instance_id
        target = ("EcsInstance", interface.instance_id) if own else ("NetworkInterface", interface_id)
        try:
            self._call(
                "AssociateEipAddress", AllocationId=public_address_id, InstanceType=target[0], InstanceId=target[1]
            )
        except Conflict:
            # The cloud says the same of an association that is there already.
            now = self.instance(interface.instance_id).interfaces[:1] if own else [self._interface(interface_id)]
            if all(each.public_address_id != public_address_id for each in now):
                raise

    def detach_interface(self, *, attachment_id: str, interface_id: str) -> None:
        """Raises InProgress when the interface is not off within `settle_s`, Gone when it is not attached there."""
        operation = "DetachNetworkInterface"
        instance_id = attachment_id.partition("/")[0]
        try:
            self._call(operation, InstanceId=instance_id, NetworkInterfaceId=interface_id)
        except Conflict as error:
            if self._interface(interface_id).instance_id == instance_id:
                raise
            raise Gone(error.message, code=error.code, operation=operation, remedy=error.remedy) from error

        def detached() -> CloudInterface | None:
            found = self._interface(interface_id)
            return None if found.instance_id else found

        self._until(operation, interface_id, detached)

    def delete_interface(self, *, interface_id: str) -> None:
        self._call("DeleteNetworkInterface", NetworkInterfaceId=interface_id)

    # inside

    def _until(self, operation: str, interface_id: str, reached: Callable[[], T | None]) -> T:
        """Reads until the interface is as wanted. Reads may fail, lag behind, even say that there is no such interface.

        Raises InProgress after `settle_s`: the call itself has taken effect, and nobody need wait for it in a thread.
        """
        deadline, pause_s = time.monotonic() + self._settle_s, _POLL_FIRST_S
        while True:
            try:
                if (found := reached()) is not None:
                    return found
            except (Gone, Throttled, Unavailable):
                pass  # the read is at fault, not the call
            if time.monotonic() + pause_s > deadline:
                raise _in_progress(operation, interface_id)
            time.sleep(pause_s)
            pause_s *= 2

    def _interface(self, interface_id: str) -> CloudInterface:
        operation = "DescribeNetworkInterfaces"
        found = self._listed(self._call(operation, NetworkInterfaceId=[interface_id]))
        if not found:
            message = f"{operation}: there is no interface {interface_id}"
            remedy = "read the instance and its interfaces again"
            raise Gone(message, code="InvalidEniId.NotFound", operation=operation, remedy=remedy)
        return found[0]

    def _interfaces_of(self, instance_id: str) -> list[CloudInterface]:
        found = [each for page in self._interfaces(InstanceId=instance_id) for each in page]
        return answers.numbered(each for each in found if each.instance_id == instance_id)

    def _interfaces(self, **asked: Any) -> Iterator[list[CloudInterface]]:
        for answer in self._pages("DescribeNetworkInterfaces", _INTERFACES_A_PAGE, **{**self._in_vpc(), **asked}):
            yield self._listed(answer)

    def _listed(self, answer: answers.Answer) -> list[CloudInterface]:
        operation = "DescribeNetworkInterfaces"
        rows = _read(operation, answers.rows, answer, "NetworkInterfaceSets", "NetworkInterfaceSet")
        return [_read(operation, answers.interface, row, self._exclude) for row in rows]

    def _vpcs(self) -> dict[str, tuple[str, ...]]:
        """CIDRs by VPC, of those in scope."""
        rows = self._numbered_pages("DescribeVpcs", "Vpcs", "Vpc", "VpcId", **self._in_vpc())
        found = dict(_read("DescribeVpcs", answers.vpc, row) for row in rows)
        wanted = set(self._scope.vpc_cidrs)
        return {id: cidrs for id, cidrs in found.items() if self._in_scope(id) and (not wanted or wanted & set(cidrs))}

    def _in_vpc(self) -> dict[str, str]:
        """ECS takes one VPC as a filter; of several, all is listed and chosen here."""
        return {"VpcId": self._scope.vpc_ids[0]} if len(self._scope.vpc_ids) == 1 else {}

    def _in_scope(self, vpc_id: str) -> bool:
        return not self._scope.vpc_ids or vpc_id in self._scope.vpc_ids

    def _pages(self, operation: str, size: int, **asked: Any) -> Iterator[answers.Answer]:
        token = None
        while True:
            answer = self._call(operation, MaxResults=size, NextToken=token, **asked)
            yield answer
            before, token = token, answer.get("NextToken")
            if not token or token == before:
                return

    def _numbered_pages(self, operation: str, outer: str, inner: str, key: str, **asked: Any) -> list[answers.Answer]:
        """Rows of a listing of the VPC API. What comes or goes between two pages may repeat or skip a row; a row that
        is told twice counts once, as it was told last, and one that is skipped is seen by the next listing.

        :param key: of a row's id.
        """
        found: dict[str, answers.Answer] = {}
        number = 1
        while True:
            answer = self._call(operation, PageNumber=number, PageSize=_ROWS_A_PAGE, **asked)
            rows = _read(operation, answers.rows, answer, outer, inner)
            found |= _read(operation, answers.by_id, rows, key)
            if len(rows) < _ROWS_A_PAGE:
                return list(found.values())
            number += 1

    def _call(self, operation: str, subnet_id: str = "", /, *, prefixes: bool = False, **asked: Any) -> answers.Answer:
        """One call. What is None is not said. Raises CloudError."""
        from ipam.providers.alibaba_errors import malformed, translate

        started = time.monotonic()
        outcome = "ok"
        try:
            answer = self._client().call(operation, {"RegionId": self.region, **asked})
        except _MALFORMED as error:
            # The SDK reads answers without a look at them.
            outcome = (failure := malformed(operation, error)).code
            raise failure from error
        except Exception as error:
            outcome = (failure := translate(error, operation, subnet_id=subnet_id, prefixes=prefixes)).code
            raise failure from error
        finally:
            self._observe(operation, outcome, time.monotonic() - started)
        return answer

    def _client(self) -> Client:
        with self._lock:
            if self._made is None:
                from ipam.providers.alibaba_client import Client

                self._made = Client(
                    self.region, self._cluster, self._endpoint_url, connections=self._connections,
                    connect_timeout_s=self._connect_timeout_s, read_timeout_s=self._read_timeout_s,
                )  # fmt: skip
            return self._made


def _in_progress(operation: str, interface_id: str) -> InProgress:
    return InProgress(
        f"{operation}: {interface_id} is on its way",
        code="InProgress",
        operation=operation,
        remedy="nothing: it is looked at again",
        retry_after_s=_IN_PROGRESS_S,
    )


def _read(operation: str, read: Callable[..., T], *given: Any) -> T:
    """What `read` makes of an answer. Raises Unavailable when the answer is not what the cloud gives."""
    try:
        return read(*given)
    except _MALFORMED as error:
        from ipam.providers.alibaba_errors import malformed

        raise malformed(operation, error) from error


def _tag_rows(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _tagged(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether `tags` has all of `wanted`, whose values may hold the wildcards * and ?."""
    return all(key in tags and fnmatch.fnmatchcase(tags[key], value) for key, value in wanted.items())


def _token(client_token: str) -> str | None:
    """The cloud takes 64 characters of ASCII; another token is replaced by its digest."""
    if len(client_token) <= _LONGEST_TOKEN and client_token.isascii():
        return client_token or None
    return hashlib.sha256(client_token.encode()).hexdigest()


__all__ = ["AlibabaProvider", "Scope"]
