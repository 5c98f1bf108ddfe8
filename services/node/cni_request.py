"""A CNI request as the plugin relays it: read, checked, and every mistake named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ipam.local import Owner

SUPPORTED: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_SINCE: Final = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
COMMANDS: Final = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
# Container id and interface name as the specification has them.
_CONTAINER_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_INTERFACE_NAME: Final = re.compile(r"[^\s/:]{1,15}")
_LABELS_MAX, _LABEL_BYTES = 128, 512
_LABELS_REMEDY: Final = 'write {"args": {"cni": {"labels": [{"key": "app", "value": "web"}]}}}, all of it text'
_ATTACHMENTS: Final = ("cni.dev/valid-attachments", "cni.dev/attachments")

INCOMPATIBLE, UNSUPPORTED_FIELD, UNKNOWN_CONTAINER, BAD_ENVIRONMENT = 1, 2, 3, 4
IO_FAILURE, BAD_ENCODING, BAD_CONFIG, TRY_LATER = 5, 6, 7, 11
NOT_AVAILABLE: Final = 50
KERNEL_FAILED, CHECK_FAILED, INTERNAL = 100, 101, 199


class CniError(Exception):
    """What a runtime is told; `code` is of the specification, or 100 and up for what it has no word for."""

    def __init__(self, code: int, message: str, details: str = "", *, version: str = SUPPORTED[-1]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.version = version

    def encode(self) -> bytes:
        body = {"cniVersion": self.version, "code": self.code, "msg": self.message, "details": self.details}
        return msgspec.json.encode(body) + b"\n"


@dataclass(frozen=True, slots=True)
class CniRequest:
    """A request that is well-formed. `owner` is None for GC, STATUS and VERSION, `valid` is set for GC only, `labels`
    for ADD only."""

    command: str
    version: str
    network: str
    owner: Owner | None
    netns: str
    pod: str
    previous: Mapping[str, Any] | None
    valid: frozenset[Owner]
    labels: Mapping[str, str]


def parse(environment: bytes, config: bytes) -> CniRequest:
    """`environment`: NAME=VALUE, each ended by a zero byte. Raises CniError."""
    variables = dict(
        item.decode(errors="surrogateescape").partition("=")[::2] for item in environment.split(b"\0") if item
    )
    try:
        content = msgspec.json.decode(config)
    except msgspec.DecodeError as error:
        raise CniError(BAD_ENCODING, f"the network configuration is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CniError(BAD_ENCODING, "the network configuration is not a JSON object")
    command = variables.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise CniError(BAD_ENVIRONMENT, f"CNI_COMMAND is {command!r}", f"it must be one of {', '.join(COMMANDS)}")
    version = _version(content, command)
    try:
        return _request(command, version, content, variables)
    except CniError as error:
        error.version = version
        raise


def _version(content: Mapping[str, Any], command: str) -> str:
    version = content.get("cniVersion", "0.3.0" if command == "VERSION" else "")
    if version not in SUPPORTED:
        raise CniError(
            INCOMPATIBLE,
            f"cniVersion {version!r} is not supported",
            f"write one of {', '.join(SUPPORTED)} in the network configuration",
        )
    since = _SINCE.get(command, SUPPORTED[0])
    if SUPPORTED.index(version) < SUPPORTED.index(since):
        raise CniError(
            INCOMPATIBLE,
            f"{command} does not exist in cniVersion {version}",
            f"write {since} or later in the network configuration",
            version=version,
        )
    return str(version)


def _request(command: str, version: str, content: Mapping[str, Any], variables: Mapping[str, str]) -> CniRequest:
    network = content.get("name", "")
    if not isinstance(network, str) or not network:
        raise CniError(BAD_CONFIG, "the network configuration has no name", 'add "name": "plimsoll"')
    owner = None
    netns = variables.get("CNI_NETNS", "")
    if command in ("ADD", "DEL", "CHECK"):
        owner = _owner(variables.get("CNI_CONTAINERID", ""), variables.get("CNI_IFNAME", ""))
        if command != "DEL" and not netns:
            raise CniError(BAD_ENVIRONMENT, "CNI_NETNS is empty", "give the path of the pod's network namespace")
    previous = content.get("prevResult")
    if previous is not None and not isinstance(previous, dict):
        raise CniError(BAD_CONFIG, "prevResult is not a JSON object")
    if command == "CHECK" and previous is None:
        raise CniError(BAD_CONFIG, "CHECK needs prevResult", "give the result of ADD in the network configuration")
    valid = _attachments(content) if command == "GC" else frozenset()
    # The end of a pod must not fail for what its beginning said.
    labels = _labels(content) if command == "ADD" else {}
    pod = _pod(variables.get("CNI_ARGS", ""))
    return CniRequest(command, version, network, owner, netns, pod, previous, valid, labels)


def _owner(container_id: str, interface_name: str) -> Owner:
    if not _CONTAINER_ID.fullmatch(container_id):
        raise CniError(
            BAD_ENVIRONMENT,
            f"CNI_CONTAINERID is {container_id!r}",
            "it must begin with a letter or digit and hold letters, digits, '_', '.' and '-' only",
        )
    if not _INTERFACE_NAME.fullmatch(interface_name) or interface_name in (".", ".."):
        raise CniError(
            BAD_ENVIRONMENT,
            f"CNI_IFNAME is {interface_name!r}",
            "it must have 1 to 15 characters without space, slash and colon",
        )
    return Owner(container_id, interface_name)


def _pod(arguments: str) -> str:
    """Name of the pod as "namespace/name" from CNI_ARGS; empty if it is not told."""
    known = dict(item.partition("=")[::2] for item in arguments.split(";") if item)
    name = known.get("K8S_POD_NAME", "")
    return f"{known.get('K8S_POD_NAMESPACE', '')}/{name}" if name else ""


def _labels(content: Mapping[str, Any]) -> dict[str, str]:
    """args.cni.labels as CNI's conventions have them: a list of {"key", "value"}."""
    given: Any = content
    for name, kind in (("args", dict), ("cni", dict), ("labels", list)):
        given = given.get(name)
        if given is None:
            return {}
        if not isinstance(given, kind):
            raise CniError(BAD_CONFIG, f"args.cni.labels: {name} is {type(given).__name__}", _LABELS_REMEDY)
    if len(given) > _LABELS_MAX:
        raise CniError(BAD_CONFIG, f"args.cni.labels has {len(given)} labels", f"give at most {_LABELS_MAX}")
    labels: dict[str, str] = {}
    for position, one in enumerate(given):
        key, value = (one.get("key"), one.get("value")) if isinstance(one, dict) else (None, None)
        where = f"args.cni.labels[{position}]"
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            raise CniError(BAD_CONFIG, f"{where} is no label", _LABELS_REMEDY)
        if any(len(text.encode(errors="replace")) > _LABEL_BYTES or not _is_text(text) for text in (key, value)):
            raise CniError(BAD_CONFIG, f"{where} is too long or no text", f"use at most {_LABEL_BYTES} bytes each")
        if labels.setdefault(key, value) != value:
            raise CniError(BAD_CONFIG, f"{where} gives {key!r} a second value", "name each label once")
    return labels


def _is_text(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


def _attachments(content: Mapping[str, Any]) -> frozenset[Owner]:
    for key in _ATTACHMENTS:
        if key in content:
            try:
                return frozenset(Owner(str(one["containerID"]), str(one["ifname"])) for one in content[key])
            except (TypeError, KeyError) as error:
                remedy = 'write objects with "containerID" and "ifname"'
                raise CniError(BAD_CONFIG, f"{key} is not a list of attachments", remedy) from error
    raise CniError(BAD_CONFIG, f"GC needs {_ATTACHMENTS[0]}", "list every attachment that is still valid")
