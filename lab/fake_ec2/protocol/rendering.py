"""Answers to XML.

A shape is compiled once into a function that appends text to a list; most of an answer's time is spent in here.
An element of a list may be text that was rendered before (`Rendered`), so that a listing costs what has changed.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from botocore.model import ListShape, Shape, StructureShape

from lab.fake_ec2.errors import ApiError
from lab.fake_ec2.protocol.model import operation_model, service_model

Append = Callable[[str], None]
Renderer = Callable[[Any, Append], None]


class Rendered(str):
    """The inside of an element, rendered already."""

    __slots__ = ()


def answer(action: str, result: Mapping[str, Any], request_id: str) -> bytes:
    """The whole document. Members that are None are left out."""
    parts = [
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="{_namespace()}">'
        f"<requestId>{request_id}</requestId>"
    ]
    shape = operation_model(action).output_shape
    if isinstance(shape, StructureShape):
        _compiled(action, "")(result, parts.append)
    else:
        parts.append("<return>true</return>")
    parts.append(f"</{action}Response>")
    return "".join(parts).encode()


def element(action: str, member: str, value: Mapping[str, Any]) -> Rendered:
    """The inside of one element of the answer's list `member`."""
    parts: list[str] = []
    _compiled(action, member)(value, parts.append)
    return Rendered("".join(parts))


def error(failure: ApiError, request_id: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>{escape(failure.code)}</Code>'
        f"<Message>{escape(failure.message)}</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>"
    ).encode()


@functools.cache
def _namespace() -> str:
    return str(service_model().metadata["xmlNamespace"])


@functools.cache
def _compiled(action: str, member: str) -> Renderer:
    shape = operation_model(action).output_shape
    assert isinstance(shape, StructureShape)
    if not member:
        return _compile(shape)
    listed = shape.members[member]
    assert isinstance(listed, ListShape)
    return _compile(listed.member)


def _compile(shape: Shape) -> Renderer:
    # Shapes may contain themselves, so members are compiled when first met.
    if isinstance(shape, StructureShape):
        return _structure(shape)
    if isinstance(shape, ListShape):
        return _list(shape)
    return _scalar(shape.type_name)


def _structure(shape: StructureShape) -> Renderer:
    plan: dict[str, tuple[str, str, Renderer] | None] = dict.fromkeys(shape.members)

    def step(name: str) -> tuple[str, str, Renderer]:
        member = shape.members[name]
        tag = str(member.serialization.get("name", name))
        plan[name] = compiled = (f"<{tag}>", f"</{tag}>", _compile(member))
        return compiled

    def render(value: Mapping[str, Any], append: Append) -> None:
        for name, inner in value.items():
            if inner is None:
                continue
            opening, closing, renderer = plan[name] or step(name)
            append(opening)
            renderer(inner, append)
            append(closing)

    return render


def _list(shape: ListShape) -> Renderer:
    tag = str(shape.member.serialization.get("name", "item"))
    opening, closing = f"<{tag}>", f"</{tag}>"
    inner: list[Renderer] = []

    def render(values: Any, append: Append) -> None:
        if not inner:
            inner.append(_compile(shape.member))
        renderer = inner[0]
        for value in values:
            append(opening)
            if type(value) is Rendered:
                append(value)
            else:
                renderer(value, append)
            append(closing)

    return render


def _scalar(type_name: str) -> Renderer:
    texts: dict[str, Callable[[Any], str]] = {"boolean": _boolean, "timestamp": _timestamp, "blob": _blob}
    text = texts.get(type_name, _plain)

    def render(value: Any, append: Append) -> None:
        append(text(value))

    return render


def _boolean(value: object) -> str:
    return "true" if value else "false"


def _timestamp(value: float | datetime) -> str:
    moment = value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _blob(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _plain(value: object) -> str:
    return escape(str(value))
