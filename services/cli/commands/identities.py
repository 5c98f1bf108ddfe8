"""plimsoll identities list"""

from __future__ import annotations

from services.cli.options import ContextFile, Json, group

app = group("Identities: numbers of sets of labels.")


@app.callback()
def identities() -> None:
    """Identities: numbers of sets of labels."""


@app.command("list")
def list_(context: ContextFile = None, json: Json = False) -> None:
    """List identities with their labels and how many pods have them."""
    from services.api.registry.v1.registry_pb2 import ListIdentitiesRequest
    from services.api.registry.v1.registry_pb2_grpc import RegistryServiceStub
    from services.cli import context as contexts
    from services.cli.connect import pages, stub_of
    from services.cli.render import Table, show
    from services.cli.views import identity_view

    with stub_of(contexts.current(context).need_registry(), RegistryServiceStub) as stub:
        request = ListIdentitiesRequest()
        found = [identity_view(one) for one in pages(stub.ListIdentities, request, lambda answer: answer.identities)]
    columns = {
        "identity": "identity",
        "labels": lambda item: ", ".join(f"{name}={value}" for name, value in item["labels"].items()) or "none",
        "endpoints": "endpoints",
    }
    show(found, json, Table.of(found, columns, empty="no pod has an identity yet"))
