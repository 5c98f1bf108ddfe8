"""Why a pod, or the next pod, has no address: findings with remedies, worst last to be read first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datapath.errors import DatapathError
from datapath.ports import Endpoints
from ipam.local import LocalPool
from ipam.model import Finding, Level
from services.node.pods import Attached
from services.runtime.watch import FollowState

_OK, _WAITING, _PROBLEM = Level.OK, Level.WAITING, Level.PROBLEM


def node_findings(pool: LocalPool, connections: Mapping[str, FollowState]) -> list[Finding]:
    """Whether the next pod would get an address, and what stands in its way."""
    counts = pool.counts()
    usable = sum(one.available for one in counts if not one.unusable)
    cooling = sum(one.cooling for one in counts)
    own = bool(counts) and not any(one.interface.mac for one in counts)
    findings = [_pool_finding(usable, cooling, pool.pending(), bool(counts), own)]
    remedy = "look at `ip link` for its MAC; the cloud may still be attaching it, or the guest may not see it"
    findings += [
        Finding(_PROBLEM, "interface", f"{one.interface.id} carries no new pods: {one.unusable}", remedy)
        for one in counts
        if one.unusable
    ]
    for service, state in connections.items():
        findings.append(_connection_finding(service, state, usable))
    findings += [Finding(_PROBLEM, "lease", one.message, one.remedy) for one in pool.problems()]
    return findings


def pod_findings(
    attached: Sequence[Attached], pool: LocalPool, endpoints: Endpoints, wanted: str
) -> list[Finding] | None:
    """Findings about one pod, named by "namespace/name" or the beginning of its container id. None: not known here."""
    found = [
        one
        for one in attached
        if wanted in (one.lease.pod, str(one.lease.owner)) or one.lease.owner.container_id.startswith(wanted)
    ]
    findings = [
        Finding(
            _WAITING, "lease", f"{pod or owner} waits for an address", "its runtime asks again; what follows is why"
        )
        for owner, pod in pool.waiting().items()
        if wanted in (pod, str(owner)) or owner.container_id.startswith(wanted)
    ]
    if not found and not findings:
        return None
    troubled = {one.address: one for one in pool.problems()}
    for one in found:
        lease, endpoint = one.lease, one.endpoint
        held = " and ".join(endpoint.addresses)
        text = f"{lease.pod or lease.owner} has {held} by {lease.interface_id}, on {endpoint.host_device}"
        findings.append(Finding(_OK, "lease", text))
        try:
            endpoints.check(endpoint)
            findings.append(Finding(_OK, "kernel", "device, address and routes are as they should be"))
        except DatapathError as error:
            findings.append(Finding(_PROBLEM, "kernel", error.message, error.remedy))
        if lease.address in troubled:
            problem = troubled[lease.address]
            findings.append(Finding(_PROBLEM, "lease", problem.message, problem.remedy))
    return findings


def _pool_finding(usable: int, cooling: int, pending: int, known: bool, own: bool) -> Finding:
    """:param own: the pool is a range of the node's own, which does not grow."""
    if usable:
        return Finding(_OK, "lease", f"{usable} addresses are free: the next pod gets one at once")
    if not known:
        return Finding(
            _WAITING,
            "lease",
            "this node has not been told of any interface yet",
            "wait for IPAM; `plimsoll ipam explain` on the service's side tells what it is doing",
        )
    if cooling:
        text = f"no address is free, {cooling} cool down and are free soon; {pending} pods wait"
        more = "give the node a larger range (pod_cidrs)" if own else "raise the node's pre_allocate"
        return Finding(_WAITING, "lease", text, f"wait, lower cooldown_s, or {more}")
    if own:
        text = f"every address of the node's range is in use; {pending} pods wait"
        return Finding(_PROBLEM if pending else _WAITING, "lease", text, "give the node a larger range (pod_cidrs)")
    return Finding(
        _PROBLEM if pending else _WAITING,
        "lease",
        f"no address is free; {pending} pods wait for the pool to grow",
        "`plimsoll ipam explain` for this node tells why it does not grow",
    )


def _connection_finding(service: str, state: FollowState, usable: int) -> Finding:
    if state.connected:
        return Finding(_OK, "connection", f"{service} is connected")
    error = state.last_error or "not connected yet"
    if service == "ipam":
        text = f"ipam cannot be reached ({error}); pods start as long as the {usable} free addresses last"
    else:
        text = f"{service} cannot be reached ({error}); others do not learn of this node's changes meanwhile"
    return Finding(_PROBLEM if service == "ipam" and not usable else _WAITING, "connection", text,
                   f"start {service}, or correct the setting `{service}`")  # fmt: skip
