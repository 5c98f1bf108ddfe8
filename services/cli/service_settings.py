"""Settings classes of the services: which there are, what can be set, what is wrong with a file."""

from __future__ import annotations

import importlib
from pathlib import Path

import services
from services.cli.errors import Unknown
from services.cli.views import View
from services.runtime import settings_text
from services.runtime.settings import ServiceSettings, SettingsError, load


def names() -> list[str]:
    """Services that can be started, as they are called on the command line."""
    root = Path(next(iter(services.__path__)))
    return sorted(one.parent.name.replace("_", "-") for one in root.glob("*/__main__.py"))


def settings_class(service: str) -> type[ServiceSettings]:
    """Raises Unknown for what is no service."""
    if service not in names():
        raise Unknown(f"there is no service {service}", remedy=f"choose one of: {', '.join(names())}")
    module = importlib.import_module(f"services.{service.replace('-', '_')}.settings")
    found: type[ServiceSettings] = module.Settings
    return found


def problems(service: str, config: Path) -> list[View]:
    """What keeps the service from starting with this file and this environment; empty if nothing does."""
    try:
        load(settings_class(service), ["--config", str(config)], name=service)
    except SettingsError as error:
        found = []
        for line in error.message.splitlines():
            field, _, message = line.partition(": ")
            found.append({"field": field, "message": message})
        return found
    return []


def markdown(service: str) -> str:
    """The settings of a service as the table that docs/settings.md holds."""
    rows = ["| setting | accepted | default | meaning |", "|---|---|---|---|"]
    for one in fields(service):
        if one["required"]:
            default = "required"
        elif one["required_within"]:
            default = f"needed with `{one['required_within']}`"
        elif one["of_machine"]:
            default = "the machine's"
        else:
            default = f"`{one['default']}`" if one["default"] is not None else "none"
        cells = (f"`{one['field']}`", one["accepted"], default, one["meaning"])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def fields(service: str) -> list[View]:
    """Every setting of a service, in the order of its class. `required_within` names the optional table which, if it is
    given, needs the field."""
    cls = settings_class(service)
    found = []
    for dotted, field in settings_text.fields_of(cls):
        table, _, inner = dotted.rpartition(".")
        optional_table = bool(inner and table) and not cls.model_fields[table.split(".")[0]].is_required()
        # A factory that is no plain type asks the machine, as for its host name.
        asks_machine = field.default_factory is not None and not isinstance(field.default_factory, type)
        default = None if field.is_required() or asks_machine else field.get_default(call_default_factory=True)
        found.append(
            {
                "field": dotted,
                "required": field.is_required() and not optional_table,
                "required_within": table if field.is_required() and optional_table else "",
                "of_machine": asks_machine,
                "accepted": settings_text.accepted(field),
                "default": None if default is None else settings_text.shown(field, default),
                "environment": settings_text.variable(cls, dotted),
                "meaning": field.description or "",
            }
        )
    return found
