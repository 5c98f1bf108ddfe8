"""Logs: one form for all, and no secret in any."""

from __future__ import annotations

import io
import json
import logging as standard_logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from services.runtime import logging


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    root = standard_logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out = io.StringIO()
    logging.configure("registry", level="info", format="json", stream=out)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    structlog.reset_defaults()
    standard_logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_ours_and_the_libraries_logs_look_alike(logged: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger("server").info("listening", port=7401)
    standard_logging.getLogger("celery.worker").warning("lost %s", "redis")
    standard_logging.getLogger("celery.worker").debug("not told")
    structlog.get_logger("server").debug("not told")
    ours, theirs = logged()
    assert (ours["event"], ours["port"], ours["level"], ours["service"]) == ("listening", 7401, "info", "registry")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("lost redis", "warning", "celery.worker")
    assert ours["timestamp"].endswith("Z")
    assert theirs.keys() - ours.keys() == {"logger"} - ours.keys()


def test_secrets_are_masked_wherever_they_stand(logged: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger("x").info(
        "connecting to redis://:hunter2@10.0.0.1/0",
        store="postgresql://plimsoll:hunter2@db/x",
        aws_secret_access_key="hunter2",
        settings={"password": "hunter2", "nested": [{"auth_token": "hunter2"}], "hidden": SecretStr("hunter2")},
        client_token="kept",
    )
    standard_logging.getLogger("kombu").error("can't reach %s", "redis://:hunter2@10.0.0.1/0")
    try:
        raise ValueError("postgresql://plimsoll:hunter2@db/x is down")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    events = logged()
    assert len(events) == 3
    assert "hunter2" not in json.dumps(events)
    assert events[0]["client_token"] == "kept"
    assert "ValueError" in events[2]["exception"]


def test_an_event_that_json_can_not_hold_is_still_logged(logged: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger("x").info("odd", value=object(), data=b"\xff", keys={1: 2})
    assert logged()[0]["event"] == "odd"


def test_console_lines_are_for_people() -> None:
    out = io.StringIO()
    try:
        logging.configure("registry", format="console", stream=out)
        password = "hunter2"
        try:
            raise ValueError("no")
        except ValueError:
            structlog.get_logger("x").exception("failed", node="node-1", password=password)
    finally:
        structlog.reset_defaults()
        standard_logging.captureWarnings(False)
        standard_logging.getLogger().handlers.clear()
    assert "node=node-1" in out.getvalue()
    assert "hunter2" not in out.getvalue().replace('password = "hunter2"', ""), "tracebacks show no variables"
