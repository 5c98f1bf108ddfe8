"""plimsoll queue dead-letters list|show|replay"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.options import ContextFile, IpamName, Json, group

if TYPE_CHECKING:
    from services.cli.context import Context
    from services.cli.views import View

app = group("Work that gave up, and its replay.")
letters = group("Intents that gave up: look, and try again.")
app.add_typer(letters, name="dead-letters")

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the dead letter.", show_default=False)]


@letters.command("list")
def list_(service: IpamName = None, context: ContextFile = None, json: Json = False) -> None:
    """List what gave up, and why. Exits 1 if there is any."""
    from services.cli import context as contexts
    from services.cli.errors import EXIT_PROBLEM
    from services.cli.render import Table, aged, show

    found = _all(contexts.current(context), service)
    columns = {
        "id": "id",
        "kind": lambda item: item["intent"]["kind"],
        "node": lambda item: item["intent"]["node"] or "-",
        "attempts": lambda item: item["intent"]["attempts"],
        "replays": "replays",
        "died": aged("died_at"),
        "why": "why",
        "service": "service",
    }
    show(found, json, Table.of(found, columns, empty="nothing gave up"))
    if found:
        raise typer.Exit(EXIT_PROBLEM)


@letters.command("show")
def show_(id: Id, service: IpamName = None, context: ContextFile = None, json: Json = False) -> None:
    """Show one dead letter with the steps that were taken."""
    from services.api.ipam.v1.ipam_pb2 import GetDeadLetterRequest
    from services.api.ipam.v1.ipam_pb2_grpc import IpamServiceStub
    from services.cli import context as contexts
    from services.cli.connect import DEADLINE_S, ask_all, stub_of
    from services.cli.context import Service
    from services.cli.pools import first
    from services.cli.render import Table, age, show
    from services.cli.views import dead_letter_view

    def ask(one: Service) -> View:
        with stub_of(one, IpamServiceStub) as stub:
            answer = stub.GetDeadLetter(GetDeadLetterRequest(id=id), timeout=DEADLINE_S)
        return dead_letter_view(one.name, answer.dead_letter)

    answers = ask_all(contexts.current(context).need_ipam(service), ask)
    found = first(answers, f"there is no dead letter {id}", "`plimsoll queue dead-letters list` names them")
    intent = found["intent"]
    pairs = {
        "why": found["why"],
        "died": age(found["died_at"]),
        "replays": found["replays"],
        **{
            key: intent[key] for key in ("service", "id", "kind", "node", "want", "addresses", "attempts", "last_error")
        },
        "created": age(intent["created_at"]),
    }
    columns = {key: key for key in ("number", "operation", "target", "arguments", "result")}
    steps = Table.of(intent["steps"], columns, title="steps", empty="no step was taken")
    show(found, json, Table.of_pairs(pairs, title=f"dead letter {id}"), steps)


@letters.command()
def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Ids of dead letters.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    service: IpamName = None,
    context: ContextFile = None,
    json: Json = False,
) -> None:
    """Have dead letters tried again, each as an intent of its own."""
    from services.api.ipam.v1.ipam_pb2 import ReplayDeadLetterRequest
    from services.api.ipam.v1.ipam_pb2_grpc import IpamServiceStub
    from services.cli import context as contexts
    from services.cli.connect import DEADLINE_S, stub_of
    from services.cli.errors import Unknown, Usage
    from services.cli.render import show

    if bool(ids) == all_:
        raise Usage("name dead letters, or say --all", remedy="`plimsoll queue dead-letters list` names them")
    found = contexts.current(context)
    owner = {letter["id"]: letter["service"] for letter in _all(found, service)}
    for id in ids or ():
        if id not in owner:
            raise Unknown(f"there is no dead letter {id}", remedy="`plimsoll queue dead-letters list` names them")
    replayed = []
    for id in ids or list(owner):
        with stub_of(found.ipam[owner[id]], IpamServiceStub) as stub:
            answer = stub.ReplayDeadLetter(ReplayDeadLetterRequest(id=id), timeout=DEADLINE_S)
        replayed.append({"id": id, "service": owner[id], "intent_id": answer.intent_id})
    lines = [f"{one['id']}: tried again as intent {one['intent_id']} of {one['service']}" for one in replayed]
    show(replayed, json, "\n".join(lines) or "nothing gave up")


def _all(context: Context, service: str | None) -> list[View]:
    from services.api.ipam.v1.ipam_pb2 import ListDeadLettersRequest
    from services.api.ipam.v1.ipam_pb2_grpc import IpamServiceStub
    from services.cli.connect import of_leaders, pages, stub_of
    from services.cli.context import Service
    from services.cli.views import dead_letter_view

    def ask(one: Service) -> list[View]:
        with stub_of(one, IpamServiceStub) as stub:
            listed = pages(stub.ListDeadLetters, ListDeadLettersRequest(), lambda answer: answer.dead_letters)
        return [dead_letter_view(one.name, letter) for letter in listed]

    return [letter for some in of_leaders(context.need_ipam(service), ask) for letter in some]
