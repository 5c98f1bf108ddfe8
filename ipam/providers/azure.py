"""Azure: addresses are IP configurations of the network interfaces that a virtual machine was made with.

    azure.py           what the port asks for
    azure_client.py    the calls, each made once
    azure_writes.py    writes of a whole resource, one at a time and several changes together
    azure_answers.py   what ARM answers, as the domain's facts
    azure_errors.py    what ARM refuses, as the domain's errors
    azure_ids.py       resource ids
    azure_settings.py  what may be set, checked

Configurations for pods bear names of ours, made of the client token, so that a write that is repeated finds what it
made. Others stay as they are. Only those in state Succeeded carry pods. A write is a long-running operation: while one
is under way InProgress is raised, also for reads of that virtual machine alone; listings leave it out.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

from ipam.errors import CloudError, Gone, InProgress, LimitReached, Rejected, SubnetExhausted, Unavailable
from ipam.model import NO_TAGS, CloudInterface, Instance, Limits, PublicAddress, SecurityGroup, Subnet
from ipam.ports import Capabilities, OperationObserver
from ipam.providers import azure_answers as answers
from ipam.providers import azure_ids as ids
from ipam.providers.azure_client import MALFORMED, AzureClient, Document
from ipam.providers.azure_public import PublicAddresses, assign_public
from ipam.providers.azure_settings import Scope, check
from ipam.providers.azure_writes import Writes
from ipam.providers.incapable import Incapable, refuse

T = TypeVar("T")
_LOOK_AGAIN_S: Final = 2.0  # where Azure does not say
_LOOK_AGAIN_AT_LAST_S: Final = 30.0
_IMAGE: Final = "imageReference"
_SEEN: Final = (
    "provisioningState",
    "privateIPAddress",
)  # what interfaces know of a configuration, and a model does not


def _silent(operation: str, outcome: str, seconds: float) -> None:
    """Nobody observes."""


class AzureProvider(Incapable):
    """CloudProvider of one subscription and location. Blocking, thread-safe.

    :param account: the subscription's id; :param region: the location's name, as westeurope.
    :param endpoint_url: another ARM than Azure's public one.
    :param observe: told of each call with its name.
    :param exclude: interfaces with all these tags carry no pods: they keep their place, without addresses.
    :param scope: what of the subscription is looked at.
    :param connections: that are kept for further calls; as many as there are threads.

    Raises InvalidInput for settings that cannot be.
    """

    capabilities = Capabilities(
        creates_interfaces=False,
        max_addresses_per_call=answers.CONFIGURATIONS - 1,
        max_addresses_on_create=0,
        delete_on_termination=False,
        assign_tokens=True,
        public_addresses=True,
        ids_ignore_case=True,
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
    ) -> None:
        self._scope = scope or Scope()
        check(account, region, endpoint_url, self._scope)
        self.account = account
        self.region = region
        self._exclude = exclude
        self._client = AzureClient(
            account, endpoint_url=endpoint_url, observe=observe or _silent, cluster=cluster, connections=connections,
            connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s,
        )  # fmt: skip
        self._writes = Writes()
        self._public = PublicAddresses(self._client, region)
        # The operation that last wrote a resource, for the reason of its failure. Lost with the process: the next
        # write finds out.
        self._operations: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()
        self._sizes_lock = threading.Lock()

    # reading

    def instance(self, instance_id: str) -> Instance:
        """Raises InProgress while it, or an interface of it, is being written: what it holds is not settled then."""
        machine = ids.machine(instance_id)
        document = self._client.machine(machine)
        nics = self._nics_of(machine, document)
        for each in (document, *nics) if machine.set else nics:
            _require_settled(each)
        return _read("Get", partial(self._instance, document, nics))

    def inventory(self) -> Iterator[tuple[Sequence[Instance], Sequence[CloudInterface]]]:
        """A virtual machine that is being written is left out, and what cannot be read (an interface without an address
        is none for pods): it is read by itself, when it is settled or says what is wrong."""
        groups = tuple(self._scope.resource_groups) or ("",)
        by_machine: defaultdict[str, list[Document]] = defaultdict(list)
        for group in groups:
            for page in self._client.nics(group):
                for nic in page:
                    by_machine[answers.low_id(answers.properties(nic).get("virtualMachine"))].append(nic)
        yield (), self._readable(by_machine.pop("", []))
        for group in groups:
            for page in self._client.machines(group):
                yield self._joined(page, by_machine), ()
            for sets in self._client.scale_sets(group):
                for each in sets:
                    uniform = answers.properties(each).get("orchestrationMode") != "Flexible"
                    if uniform and answers.is_in(each, self.region):
                        yield from self._uniform(ids.scale_set(str(each["id"])))

    def _uniform(self, scale_set: ids.Resource) -> Iterator[tuple[Sequence[Instance], Sequence[CloudInterface]]]:
        by_machine: defaultdict[str, list[Document]] = defaultdict(list)
        for page in self._client.set_nics(scale_set):
            for nic in page:
                by_machine[answers.low_id(answers.properties(nic).get("virtualMachine"))].append(nic)
        for page in self._client.set_machines(scale_set):
            yield self._joined(page, by_machine), ()

    def _joined(self, page: Sequence[Document], by_machine: Mapping[str, Sequence[Document]]) -> list[Instance]:
        found = []
        for document in page:
            nics = by_machine.get(str(document.get("id", "")).lower(), ())
            own_tags = answers.tags(document)
            in_scope = all(own_tags.get(key) == value for key, value in self._scope.instance_tags.items())
            # A single machine may be at work on something else; one of a uniform set is what is written.
            written = nics if answers.is_single(document) else (document, *nics)
            if in_scope and nics and not any(map(answers.is_under_way, written)):
                with contextlib.suppress(*MALFORMED):
                    found.append(self._instance(document, nics))
        return found

    def _readable(self, nics: Sequence[Document]) -> list[CloudInterface]:
        found = []
        for each in nics:
            with contextlib.suppress(*MALFORMED):
                found.append(answers.interface(each, self._exclude))
        return found

    def subnets(self) -> Sequence[Subnet]:
        found: list[Subnet] = []
        wanted = {each.lower() for each in self._scope.vpc_ids}
        for page in self._client.networks():
            for network in page:
                network_id = str(network.get("id", "")).lower()
                if answers.is_in(network, self.region) and (not wanted or network_id in wanted):
                    usages = self._client.usages(ids.network(network_id))
                    found += _read("VirtualNetworks.List", partial(_subnets, network, usages))
        return found

    def security_groups(self) -> Sequence[SecurityGroup]:
        rows = [each for page in self._client.security_groups() for each in page]
        found = _read("NetworkSecurityGroups.List", lambda: [answers.security_group(row) for row in rows])
        wanted = self._scope.security_group_tags
        return [each for each in found if all(each.tags.get(key) == value for key, value in wanted.items())]

    def limits(self, instance_type: str) -> Limits:
        """The location's sizes are listed once, and again for one that the list lacks."""
        with self._sizes_lock:
            if instance_type.lower() not in self._sizes:
                rows = [each for page in self._client.skus(self.region) for each in page]
                self._sizes = _read("ResourceSkus.List", lambda: answers.interfaces_by_size(rows))
            interfaces = self._sizes.get(instance_type.lower())
        if interfaces is None:
            raise Rejected(
                f"no virtual machine size {instance_type!r} in {self.region}", code="InvalidParameter",
                operation="ResourceSkus.List", remedy="check the size's name, or give its limits in the override",
            )  # fmt: skip
        return answers.limits(instance_type, interfaces)

    # changing

    def assign_addresses(self, *, interface_id: str, count: int, client_token: str = "") -> Sequence[str]:
        """Fewer than `count` where configurations of others leave less room. Raises LimitReached if none is left,
        InProgress as soon as Azure has begun: who repeats it with the token is told the addresses."""
        nic = ids.nic(interface_id)
        names = _names(client_token, count)

        def change(held: list[dict[str, Any]], others: int) -> bool:
            known = {str(each["name"]) for each in held}
            fresh = [name for name in names if name not in known]
            room = answers.CONFIGURATIONS - len(held) - others
            if fresh and room <= 0:
                raise LimitReached(
                    f"{interface_id} and its virtual machine hold {answers.CONFIGURATIONS} IP configurations",
                    code="IPConfigurationsLimitExceeded", operation="assign",
                    remedy="move pods to other nodes: Azure allows no more",
                )  # fmt: skip
            first = answers.primary(held)
            if fresh:  # beside others it has to be said which one is primary
                first["properties"]["primary"] = True
            held += [_configuration(name, first) for name in fresh[:room]]
            return bool(fresh)

        found = self._write(nic, change, names)
        return [found[name] for name in names if name in found]

    def unassign_addresses(self, *, interface_id: str, addresses: Sequence[str]) -> None:
        """Raises InProgress as soon as Azure has begun, Rejected, and takes nothing, if one is not there."""
        if not addresses:
            return
        nic = ids.nic(interface_id)
        document = self._client.nic(nic)
        now = _read("unassign", lambda: {address: name for name, address in answers.ours(document).items()})
        if unknown := sorted(set(addresses) - now.keys()):
            raise Rejected(
                f"{interface_id} does not hold {', '.join(unknown)}", code="AddressNotHeld", operation="unassign",
                remedy="read the interface again",
            )  # fmt: skip
        names = {now[address] for address in addresses}

        def change(held: list[dict[str, Any]], others: int) -> bool:
            left = [each for each in held if str(each["name"]) not in names]
            changed = len(left) < len(held)
            held[:] = left
            return changed

        self._write(nic, change, ())

    def public_addresses(self, *, tags: Mapping[str, str]) -> Sequence[PublicAddress]:
        """Of public IP prefixes with these tags, and with them themselves; a prefix stands for one that it has left."""
        return _read("PublicIPAddresses.List", partial(self._public.listed, tags))

    def associate_public_address(self, *, public_address_id: str, interface_id: str) -> None:
        """An interface of a uniform scale set takes an address of a prefix, which Azure makes and deletes with it."""
        nic = ids.nic(interface_id)
        wanted = self._public.of_prefix(public_address_id) if nic.set else self._public.taken(public_address_id, nic)

        def change(held: list[dict[str, Any]], others: int) -> bool:
            return assign_public(held, interface_id, wanted)

        self._write(nic, change, ())

    # What Azure has no calls for while a virtual machine runs.

    def create_interface(self, **_: Any) -> CloudInterface:
        refuse("interfaces that can be created")

    def attach_interface(self, **_: Any) -> CloudInterface:
        refuse("interfaces that can be attached")

    def protect_interface(self, **_: Any) -> None:
        refuse("interfaces that can be protected")

    def detach_interface(self, **_: Any) -> None:
        refuse("interfaces that can be detached")

    def delete_interface(self, **_: Any) -> None:
        refuse("interfaces that can be deleted")

    # inside

    def _write(
        self, nic: ids.Resource, change: Callable[[list[dict[str, Any]], int], bool], names: Sequence[str]
    ) -> Mapping[str, str]:
        """Addresses of the interface after the write, by name.

        :param change: of its configurations, in place; told how many the machine's other interfaces hold.
        :param names: configurations that have to be there when it has ended.
        """
        key = nic.machine_id or nic.id
        subnet_ids: list[str] = []

        def changed(document: Document) -> bool:
            held, others = _rows_of(nic, document)
            if subnet := answers.low_id(answers.properties(answers.primary(held)).get("subnet")):
                subnet_ids.append(subnet)
            self._tell_failure(key, document, subnet_ids)
            # What failed without an address goes. What has one may be a pod's: written again, it is mended.
            before = [each for each in held if not _failed(each) or answers.properties(each).get("privateIPAddress")]
            mended = len(before) < len(held) or any(map(_failed, before))
            held[:] = before
            return change(held, others) or mended

        try:
            document = self._writes.write(
                key, lambda document: _read("write", partial(changed, document)), lambda: self._settled(nic),
                lambda document: self._put(nic, key, document),
            )  # fmt: skip
        except SubnetExhausted as error:
            error.subnet_id = error.subnet_id or next(iter(subnet_ids), "")
            raise
        if answers.is_under_way(document):
            raise _in_progress(document, key)
        if nic.set:
            self._tell_failure(key, document, subnet_ids)
            document = self._client.nic(nic)
        found = _read("write", partial(answers.held, document))
        if names and found.keys().isdisjoint(names):  # the reader lags behind
            raise _in_progress(document, key)
        return found

    def _settled(self, nic: ids.Resource) -> Document:
        """What is to be written: the interface, or the machine of a uniform scale set. Raises InProgress."""
        if not nic.set:
            document = self._client.nic(nic)
            _require_settled(document)
            return document
        machine = ids.machine(nic.machine_id)
        document = self._client.machine(machine, user_data=True)
        _require_settled(document)
        nics = self._client.set_machine_nics(machine)
        _read("write", partial(_tell_seen, document, nics))
        return document

    def _put(self, nic: ids.Resource, key: str, document: Document) -> Document:
        etag = str(document.get("etag") or "")
        if nic.set:
            # An image of a foreign gallery, written back, would need permissions to it.
            (document["properties"].get("storageProfile") or {}).pop(_IMAGE, None)
            for model in _models(document):
                for row in model["properties"]["ipConfigurations"]:
                    for name in _SEEN:
                        row["properties"].pop(name, None)
            answer = self._client.put_set_machine(ids.machine(nic.machine_id), document, etag)
        else:
            answer = self._client.put_nic(nic, document, etag)
        with self._lock:
            self._operations[key] = str(answer.pop("_operation", ""))
        return answer

    def _tell_failure(self, key: str, document: Document, subnet_ids: Sequence[str]) -> None:
        """Raises why the last write of the resource failed, once."""
        if answers.state(document) != "Failed":
            return
        with self._lock:
            url = self._operations.pop(key, "")
        if not url:
            return
        try:
            ended = self._client.operation(url)
        except CloudError:
            return
        if str(ended.get("status")) == "Failed":
            from ipam.providers.azure_errors import of_operation

            raise of_operation(ended.get("error") or {}, "Operations.Get", subnet_id=next(iter(subnet_ids), ""))

    def _nics_of(self, machine: ids.Resource, document: Document) -> list[Document]:
        if machine.set:
            return self._client.set_machine_nics(machine)
        profile = (answers.properties(document).get("networkProfile") or {}).get("networkInterfaces") or ()
        try:
            return [self._client.nic(ids.nic(answers.low_id(each))) for each in profile]
        except Gone as error:
            # Azure deletes no interface that a machine has: the reader lags behind, and the machine is not gone.
            raise Unavailable(
                f"an interface of {machine.id} is not seen: {error.message}", code="InterfaceNotSeen",
                operation=error.operation, remedy="nothing: it is read again", retry_after_s=_LOOK_AGAIN_S,
            ) from error  # fmt: skip

    def _instance(self, document: Document, nics: Sequence[Document]) -> Instance:
        return answers.instance(document, [answers.interface(each, self._exclude) for each in nics])


def _subnets(network: Document, usages: Sequence[Document]) -> list[Subnet]:
    return list(answers.subnets(network, usages))


def _require_settled(document: Document) -> None:
    if answers.is_under_way(document):
        raise _in_progress(document, str(document.get("id", "")).lower())


def _in_progress(document: Document, what: str) -> InProgress:
    return InProgress(
        f"{what} is {answers.state(document).lower()}", code="OperationInProgress", operation="write",
        remedy="nothing: it is looked at again",
        retry_after_s=min(document.get("_retry_after_s") or _LOOK_AGAIN_S, _LOOK_AGAIN_AT_LAST_S),
    )  # fmt: skip


def _rows_of(nic: ids.Resource, document: Document) -> tuple[list[dict[str, Any]], int]:
    """The interface's configurations within the document that is written, and how many the others there have."""
    if not nic.set:
        rows: list[dict[str, Any]] = document["properties"]["ipConfigurations"]
        return rows, 0
    others = 0
    found: list[dict[str, Any]] | None = None
    for model in _models(document):
        rows = model["properties"].setdefault("ipConfigurations", [])
        if str(model["name"]).lower() == nic.name:
            found = rows
        else:
            others += len(rows)
    if found is None:
        raise Gone(f"{nic.id} is not in the model of its virtual machine", code="ResourceNotFound", operation="write")
    return found, others


def _models(document: Document) -> list[dict[str, Any]]:
    profile = document["properties"].get("networkProfileConfiguration") or {}
    return list(profile.get("networkInterfaceConfigurations") or ())


def _tell_seen(document: Document, nics: Sequence[Document]) -> None:
    """The model says what is wanted; what came of it, only the interfaces say."""
    seen = {
        (str(each["name"]).lower(), str(row["name"])): answers.properties(row)
        for each in nics
        for row in answers.configurations(each)
    }
    for model in _models(document):
        for row in model["properties"].get("ipConfigurations") or ():
            unseen = {"provisioningState": answers.state(document)}
            told = seen.get((str(model["name"]).lower(), str(row["name"])), unseen)
            row["properties"] |= {name: told.get(name) for name in _SEEN}


def _failed(configuration: Document) -> bool:
    return answers.is_ours(configuration) and answers.properties(configuration).get("provisioningState") == "Failed"


def _configuration(name: str, first: Document) -> dict[str, Any]:
    """In the subnet of the primary one, and in its application security groups: all of an interface have the same.
    https://learn.microsoft.com/azure/virtual-network/application-security-groups
    """
    told = answers.properties(first)
    asked = {"primary": False, "privateIPAddressVersion": "IPv4", "subnet": {"id": answers.low_id(told.get("subnet"))}}
    groups = [{"id": each["id"]} for each in told.get("applicationSecurityGroups") or ()]
    return {"name": name, "properties": {**asked, "applicationSecurityGroups": groups} if groups else asked}


def _names(client_token: str, count: int) -> list[str]:
    """Of configurations. They follow from the token, so that the same request asks for the same ones."""
    digest = hashlib.sha256(client_token.encode()).hexdigest()[:16] if client_token else secrets.token_hex(8)
    return [f"{answers.OUR_NAME}{digest}-{number}" for number in range(count)]


def _read(operation: str, read: Callable[[], T]) -> T:
    """What `read` makes of an answer. Raises Unavailable when the answer is not what ARM gives."""
    try:
        return read()
    except MALFORMED as error:
        _malformed(operation, error)


def _malformed(operation: str, error: Exception) -> NoReturn:
    from ipam.providers.azure_errors import malformed

    raise malformed(operation, error) from error


__all__ = ["AzureProvider", "Scope"]
