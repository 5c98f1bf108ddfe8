"""The calls of Azure Resource Manager that the provider makes, each made once, through the SDKs.

Resources are plain JSON documents: what is read is written back whole, with all that the provider does not know. The
SDKs are imported with the first call.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ipam.ports import OperationObserver
from ipam.providers import azure_ids as ids
from ipam.providers.azure_settings import is_loopback

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.pipeline.transport import RequestsTransport
    from azure.mgmt.compute import ComputeManagementClient
    from azure.mgmt.network import NetworkManagementClient

T = TypeVar("T")
Document = dict[str, Any]
Hook = Callable[[Any], None]
_HOSTS: Final = 4  # of ARM: its own, and those of regions that operations are told at
MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


class AzureClient:
    """One subscription. Blocking, thread-safe. Raises CloudError only.

    :param endpoint_url: another ARM than Azure's public one; over plain HTTP, on this machine, no token is asked for.
    :param observe: told of each call with its name.
    :param connections: that are kept for further calls.
    """

    def __init__(
        self,
        subscription: str,
        *,
        endpoint_url: str | None,
        observe: OperationObserver,
        cluster: str,
        connections: int,
        connect_timeout_s: float,
        read_timeout_s: float,
    ) -> None:
        self._subscription = subscription
        self._endpoint_url = endpoint_url
        self._observe = observe
        self._connections = connections
        self._timeouts = {"connection_timeout": connect_timeout_s, "read_timeout": read_timeout_s}
        self._settings: dict[str, Any] = {"retry_total": 0, "user_agent": f"plimsoll/{cluster}"}
        self._lock = threading.Lock()
        self._network_made: NetworkManagementClient | None = None
        self._compute_made: ComputeManagementClient | None = None
        self._credential: TokenCredential | None = None

    # virtual machines

    def machine(self, of: ids.Resource, *, user_data: bool = False) -> Document:
        """:param user_data: with its user data, which is told on demand only, and lost when it is written back without.
        https://learn.microsoft.com/azure/virtual-machines/user-data
        """
        if of.set:
            more = {"expand": "userData"} if user_data else {}
            return self._one(
                "ScaleSetMachines.Get",
                lambda: self._compute.virtual_machine_scale_set_vms.get(of.group, of.set, of.index, **more),
            )
        return self._one("VirtualMachines.Get", lambda: self._compute.virtual_machines.get(of.group, of.name))

    def put_set_machine(self, of: ids.Resource, document: Any, etag: str) -> Document:
        from azure.core import MatchConditions

        def put(hook: Hook) -> None:
            self._compute.virtual_machine_scale_set_vms.begin_update(
                of.group, of.set, of.index, document, etag=etag or None,
                match_condition=MatchConditions.IfNotModified if etag else None, polling=False, raw_response_hook=hook,
            )  # fmt: skip

        return self._written("ScaleSetMachines.Put", put)

    def machines(self, group: str = "") -> Iterator[list[Document]]:
        """Single ones and those of flexible scale sets, page by page; of one resource group, or of all."""

        def pages() -> Any:
            machines = self._compute.virtual_machines
            return (machines.list(group) if group else machines.list_all()).by_page()

        return self._pages("VirtualMachines.List", pages)

    def scale_sets(self, group: str = "") -> Iterator[list[Document]]:
        def pages() -> Any:
            sets = self._compute.virtual_machine_scale_sets
            return (sets.list(group) if group else sets.list_all()).by_page()

        return self._pages("ScaleSets.List", pages)

    def set_machines(self, of: ids.Resource) -> Iterator[list[Document]]:
        return self._pages(
            "ScaleSetMachines.List",
            lambda: self._compute.virtual_machine_scale_set_vms.list(of.group, of.name).by_page(),
        )

    def skus(self, location: str) -> Iterator[list[Document]]:
        return self._pages(
            "ResourceSkus.List", lambda: self._compute.resource_skus.list(filter=f"location eq '{location}'").by_page()
        )

    # interfaces

    def nic(self, of: ids.Resource) -> Document:
        if of.set:
            return self._one(
                "ScaleSetInterfaces.Get",
                lambda: self._network.network_interfaces.get_virtual_machine_scale_set_network_interface(
                    of.group, of.set, of.index, of.name
                ),
            )
        return self._one("NetworkInterfaces.Get", lambda: self._network.network_interfaces.get(of.group, of.name))

    def put_nic(self, of: ids.Resource, document: Any, etag: str) -> Document:
        headers = {"If-Match": etag} if etag else {}

        def put(hook: Hook) -> None:
            self._network.network_interfaces.begin_create_or_update(
                of.group, of.name, document, headers=headers, polling=False, raw_response_hook=hook
            )

        return self._written("NetworkInterfaces.Put", put)

    def nics(self, group: str = "") -> Iterator[list[Document]]:
        """All but those of uniform scale sets."""

        def pages() -> Any:
            nics = self._network.network_interfaces
            return (nics.list(group) if group else nics.list_all()).by_page()

        return self._pages("NetworkInterfaces.List", pages)

    def set_nics(self, of: ids.Resource) -> Iterator[list[Document]]:
        return self._pages(
            "ScaleSetInterfaces.List",
            lambda: self._network.network_interfaces.list_virtual_machine_scale_set_network_interfaces(
                of.group, of.name
            ).by_page(),
        )

    def set_machine_nics(self, of: ids.Resource) -> list[Document]:
        pages = self._pages(
            "ScaleSetMachineInterfaces.List",
            lambda: self._network.network_interfaces.list_virtual_machine_scale_set_vm_network_interfaces(
                of.group, of.set, of.index
            ).by_page(),
        )
        return [each for page in pages for each in page]

    # networks

    def networks(self) -> Iterator[list[Document]]:
        return self._pages("VirtualNetworks.List", lambda: self._network.virtual_networks.list_all().by_page())

    def usages(self, of: ids.Resource) -> list[Document]:
        pages = self._pages(
            "VirtualNetworks.Usages", lambda: self._network.virtual_networks.list_usage(of.group, of.name).by_page()
        )
        return [each for page in pages for each in page]

    def security_groups(self) -> Iterator[list[Document]]:
        return self._pages(
            "NetworkSecurityGroups.List", lambda: self._network.network_security_groups.list_all().by_page()
        )

    def public_prefixes(self) -> Iterator[list[Document]]:
        return self._pages("PublicIPPrefixes.List", lambda: self._network.public_ip_prefixes.list_all().by_page())

    def public_addresses(self) -> Iterator[list[Document]]:
        return self._pages("PublicIPAddresses.List", lambda: self._network.public_ip_addresses.list_all().by_page())

    def put_public_address(self, group: str, name: str, document: Any) -> Document:
        def put(hook: Hook) -> None:
            self._network.public_ip_addresses.begin_create_or_update(
                group, name, document, polling=False, raw_response_hook=hook
            )

        return self._written("PublicIPAddresses.Put", put)

    # long-running operations

    def operation(self, url: str) -> Document:
        """`status` is InProgress, Succeeded, Failed or Canceled; `error` says why."""
        from azure.core.rest import HttpRequest

        def get() -> Document:
            response = self._network.send_request(HttpRequest("GET", url))
            response.raise_for_status()
            return dict(response.json())

        return self._call("Operations.Get", get)

    # inside

    def _one(self, operation: str, call: Callable[[], Any]) -> Document:
        return self._call(operation, lambda: dict(call().as_dict()))

    def _written(self, operation: str, call: Callable[[Hook], None]) -> Document:
        """What a PUT answers, with the address of its operation as `_operation`, empty: it ended at once, and when to
        look at it as `_retry_after_s`."""

        from ipam.providers.azure_errors import seconds

        def put() -> Document:
            answers: list[Any] = []
            call(answers.append)
            response = answers[-1].http_response
            text = response.text()
            # 202 may come without a body: the operation has begun.
            document = json.loads(text) if text.strip() else {"properties": {"provisioningState": "Updating"}}
            told = response.headers
            after_s = seconds(told.get("Retry-After"))
            return {**document, "_operation": told.get("Azure-AsyncOperation", ""), "_retry_after_s": after_s}

        return self._call(operation, put)

    def _pages(self, operation: str, begin: Callable[[], Iterable[Any]]) -> Iterator[list[Document]]:
        pages: list[Iterator[Any]] = []

        def following() -> list[Document] | None:
            if not pages:
                pages.append(iter(begin()))
            page = next(pages[0], None)
            return None if page is None else [dict(each.as_dict()) for each in page]

        while (page := self._call(operation, following)) is not None:
            yield page

    def _call(self, operation: str, call: Callable[[], T]) -> T:
        """One call. Raises CloudError. The end of a listing, which asks for nothing, is not told to the observer."""
        from ipam.providers.azure_errors import translate

        started = time.monotonic()
        outcome = "ok"
        try:
            answer = call()
        except Exception as error:
            # The SDKs raise what they like for an answer that is garbage; callers know CloudError only.
            failure = translate(error, operation)
            outcome = failure.code
            raise failure from error
        finally:
            if outcome != "ok":
                self._observe(operation, outcome, time.monotonic() - started)
        if answer is not None:
            self._observe(operation, outcome, time.monotonic() - started)
        return answer

    @property
    def _network(self) -> NetworkManagementClient:
        with self._lock:
            if self._network_made is None:
                from azure.mgmt.network import NetworkManagementClient

                self._network_made = NetworkManagementClient(self._token(), self._subscription, **self._options())
            return self._network_made

    @property
    def _compute(self) -> ComputeManagementClient:
        with self._lock:
            if self._compute_made is None:
                from azure.mgmt.compute import ComputeManagementClient

                self._compute_made = ComputeManagementClient(self._token(), self._subscription, **self._options())
            return self._compute_made

    def _options(self) -> dict[str, Any]:
        options = {**self._settings, "transport": self._transport()}
        if self._endpoint_url is not None:
            options["base_url"] = self._endpoint_url
            options["credential_scopes"] = [f"{self._endpoint_url.rstrip('/')}/.default"]
        if self._is_fake:
            from azure.core.pipeline.policies import SansIOHTTPPolicy

            options["authentication_policy"] = SansIOHTTPPolicy()
        return options

    def _transport(self) -> RequestsTransport:
        """The SDK's own, which keeps ten connections; of more threads each call would begin with a new one."""
        from azure.core.pipeline.transport import RequestsTransport

        transport = RequestsTransport(**self._timeouts)
        transport.open()
        assert transport.session is not None
        for adapter in transport.session.adapters.values():
            adapter.init_poolmanager(_HOSTS, self._connections)
        return transport

    @property
    def _is_fake(self) -> bool:
        return (
            self._endpoint_url is not None
            and self._endpoint_url.startswith("http:")
            and is_loopback(self._endpoint_url)
        )

    def _token(self) -> TokenCredential:
        """Managed identity, workload identity, environment: whatever azure-identity finds."""
        if self._credential is None:
            from azure.identity import DefaultAzureCredential

            if self._is_fake:
                self._credential = _NoToken()
            else:
                self._credential = DefaultAzureCredential(exclude_interactive_browser_credential=True)
        return self._credential


class _NoToken:
    """Stands where a credential has to; the policy that would ask it is not there."""

    def get_token(self, *scopes: str, **more: Any) -> Any:
        raise RuntimeError("a fake on this machine needs no token")
