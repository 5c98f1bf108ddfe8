"""Pools of nodes, as the IPAM services of the context tell them."""

from __future__ import annotations

from services.api.ipam.v1.ipam_pb2 import GetPoolRequest, ListPoolsRequest
from services.api.ipam.v1.ipam_pb2_grpc import IpamServiceStub
from services.cli.connect import DEADLINE_S, ask_all, of_leaders, pages, stub_of
from services.cli.context import Context, Service
from services.cli.errors import CliError, Standby, Unknown
from services.cli.views import View, pool_view

POOL_PAIRS = (
    "service", "connected", "attached", "in_use", "cooling", "needed", "excess", "capacity", "obtainable",
    "limited_by", "pending_pods", "open_intents", "last_error",
)  # fmt: skip


def pools(context: Context, name: str | None = None) -> list[View]:
    """Pools of all IPAM services of the context, or of one."""
    return [pool for answer in of_leaders(context.need_ipam(name), _pools) for pool in answer]


def pool(context: Context, node: str, name: str | None = None) -> View:
    """The pool of a node, from whichever service has it."""

    def ask(service: Service) -> View:
        with stub_of(service, IpamServiceStub) as stub:
            return pool_view(service.name, stub.GetPool(GetPoolRequest(node=node), timeout=DEADLINE_S).pool)

    answers = ask_all(context.need_ipam(name), ask)
    return first(
        answers,
        f"no IPAM service knows node {node}",
        "`plimsoll ipam pool list` names those with a pool; does the node's daemon run?",
    )


def pool_of(context: Context, node: str) -> tuple[View | None, str]:
    """The pool of a node, or None and why there is none; for views where the pool is a part only."""
    try:
        return pool(context, node), ""
    except CliError as error:
        return None, error.message


def first(answers: list[View | CliError], unknown: str, remedy: str) -> View:
    """The first answer that is one. Else the error: that of a service that could not answer goes before a not found."""
    for answer in answers:
        if not isinstance(answer, CliError):
            return answer
    for mild in ((Unknown, Standby), (Unknown,)):
        for error in answers:
            if isinstance(error, CliError) and not isinstance(error, mild):
                raise error
        if any(isinstance(error, Unknown) for error in answers):
            break
    raise Unknown(unknown, remedy=remedy)


def _pools(service: Service) -> list[View]:
    with stub_of(service, IpamServiceStub) as stub:
        return [
            pool_view(service.name, one)
            for one in pages(stub.ListPools, ListPoolsRequest(), lambda answer: answer.pools)
        ]
