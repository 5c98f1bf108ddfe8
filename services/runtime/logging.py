"""Structured logs on standard error: JSON for machines, coloured lines for people.

Libraries that use the standard module (grpc, celery, alembic) come out in the same form. Values whose name says that
they are secret, SecretStr values, and passwords inside URLs (masking.py) are masked, whoever logs them.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog
from pydantic import SecretStr
from structlog.typing import Processor

from services.runtime.masking import MASK, without_secrets

_SECRET_NAME: Final = re.compile(
    r"(password|passwd|secret|credential|authorization|private_key|access_key|session_token|(^|_)token$)", re.I
)
# Idempotency tokens are no secrets, and a trace of a cloud call is useless without them.
_PUBLIC_NAME: Final = re.compile(r"^(client|page|next)_token$", re.I)

_STANDARD_LEVELS: Final = {
    # Chatty at info: one line for each request or connection.
    "kombu": "warning",
    "amqp": "warning",
    "botocore": "warning",
    "boto3": "warning",
    "urllib3": "warning",
    "aiohttp.access": "warning",
    "alembic": "warning",
    "asyncio": "warning",
    "hpack": "warning",
}


def configure(service: str, *, level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Sets up logging for the whole process; safe to call again.

    :param level: debug, info, warning or error.
    :param format: json, console, or auto: console when the stream is a terminal.
    """
    out = sys.stderr if stream is None else stream
    console = format == "console" or (format == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _service(service),
        _trace,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared[:3],
            *shared[4:],
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    render: list[Processor] = (
        [mask, structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, mask, structlog.processors.JSONRenderer(default=str)]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, least in _STANDARD_LEVELS.items():
        logging.getLogger(name).setLevel(max(logging.getLevelName(least.upper()), root.level))
    logging.captureWarnings(True)


def mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replaces secrets in one log event, at any depth."""
    for key, value in event.items():
        event[key] = _masked(key, value)
    return event


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, SecretStr) or (_SECRET_NAME.search(name) and not _PUBLIC_NAME.match(name)):
        return MASK
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: _masked(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", item) for item in value]
    return value


def _service(service: str) -> Processor:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        return event

    return add


def _trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Names the trace that the event belongs to, if tracing is on."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
    return event
