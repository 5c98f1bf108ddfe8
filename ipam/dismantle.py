"""Releasing an interface in one piece: the node has fenced all its addresses, it is detached and then deleted.

Between the two calls it belongs to no instance, so the next attempt finds by the steps written down what is left to do.
"""

from __future__ import annotations

from dataclasses import replace

from ipam.allocation import Found
from ipam.calls import Calls
from ipam.errors import Conflict, Gone, Rejected
from ipam.model import Claim, Done, Instance, Operation, Outcome, Retry, Step
from ipam.ports import CloudProvider, IntentJournal

DETACHING_S = 5.0


def dismantle(
    provider: CloudProvider, journal: IntentJournal, calls: Calls, claim: Claim, found: Found, instance: Instance
) -> Outcome:
    """:param instance: as the cloud says that it is now."""
    interface_id, *addresses = claim.intent.addresses
    found.instance = instance
    interface = next((each for each in instance.interfaces if each.id == interface_id), None)
    begun = any(step.operation is Operation.DETACH_INTERFACE for step in claim.intent.steps)
    if interface is not None:
        # What the cloud has added since the node fenced its addresses may be in use: it stays.
        unasked = set(interface.all_addresses) - set(addresses)
        if unasked or set(journal.confirm_release(claim.intent.id, claim.fence, addresses)) != set(addresses):
            return Done()
        number = calls.next_number
        detach = Step(number, Operation.DETACH_INTERFACE, interface_id, {"attachment_id": interface.attachment_id})
        delete = Step(number + 1, Operation.DELETE_INTERFACE, interface_id, {})
        calls.write_down([detach, delete])
        try:
            calls.mutate(
                Operation.DETACH_INTERFACE,
                lambda: provider.detach_interface(
                    attachment_id=interface.attachment_id, interface_id=interface_id
                ),
                subnet_id=interface.subnet_id, addresses=len(addresses),
            )  # fmt: skip
        except (Gone, Conflict, Rejected) as error:
            return Retry(DETACHING_S, f"detaching {interface_id}: {error.message}")
        calls.settle(replace(detach, result={}))
        left = tuple(each for each in instance.interfaces if each.id != interface_id)
        found.instance = replace(instance, interfaces=left)
    elif not begun:
        return Done()
    try:
        calls.mutate(
            Operation.DELETE_INTERFACE, lambda: provider.delete_interface(interface_id=interface_id), subnet_id=""
        )
    except Gone:
        pass
    except (Conflict, Rejected) as error:
        return Retry(DETACHING_S, f"deleting {interface_id}, which is still being detached: {error.message}")
    return Done()
