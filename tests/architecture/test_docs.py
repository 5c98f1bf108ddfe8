"""What the pages tell people to type exists: commands with their options, make targets, modules, links."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import botocore.session
import pytest
import typer

from lab.fake_alibaba.actions import ACTIONS as ALIBABA
from lab.fake_alibaba.actions.registry import ECS
from services.cli.main import Root, app

ExpectNone = Callable[..., None]
Pages = dict[str, str]


def code(text: str) -> Iterator[str]:
    """Lines of fenced and indented blocks, continuation lines joined, and inline code."""
    for block in re.finditer(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block[1].replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"^ {4,}(.*)$", prose, re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", prose)


def typed(pages: Pages, program: str) -> list[tuple[str, list[str]]]:
    """(page, arguments) of every call of a program that the pages show."""
    found = []
    for page, text in pages.items():
        for line in code(text):
            for part in re.split(r"&&|\|\||;|\$\(|<\(", line):
                words = re.sub(r"^[$#]\s+", "", part.strip()).removeprefix("sudo ")
                if re.match(rf"([A-Z_]+=\S+ )*(\.venv/bin/|/opt/\S+/bin/)?{program}(\s|$)", words):
                    found.append((page, arguments(words.split(program, 1)[1])))
    return found


def arguments(text: str) -> list[str]:
    try:
        words = shlex.split(re.split(r"\s[<>#]|\s\|\s|\)", text)[0])
    except ValueError:
        words = text.split()
    return words


@pytest.fixture(scope="module")
def root() -> Root:
    command = typer.main.get_command(app)
    assert isinstance(command, Root)
    return command


def inside(command: Any, name: str) -> Any:
    return command.load(name) if isinstance(command, Root) else command.commands.get(name)


def resolve(root: Root, words: list[str]) -> str:
    """What is wrong with a call of the command; empty if nothing is."""
    command: Any = root
    options = {"--help"}
    for word in words:
        if word.startswith("-"):
            options |= {opt for param in command.params for opt in param.opts + param.secondary_opts}
            passes_on = command.context_settings.get("ignore_unknown_options", False)
            if word.startswith("--") and word.partition("=")[0] not in options and not passes_on:
                return f"no option {word} in {' '.join(words)}"
        elif hasattr(command, "commands") and not word.isupper() and word not in ("...", "COMMAND"):
            options |= {opt for param in command.params for opt in param.opts}
            choices = word.split("|")
            known = command.list_commands(None) if isinstance(command, Root) else list(command.commands)
            if unknown := [choice for choice in choices if choice not in known]:
                return "" if was_value(words, word) else f"no command {unknown[0]} in {' '.join(words)}"
            command = inside(command, choices[0])
    return ""


def was_value(words: list[str], word: str) -> bool:
    position = words.index(word)
    return position > 0 and words[position - 1].startswith("--")


def test_every_command_that_is_shown_exists(expect_none: ExpectNone, root: Root, project_pages: Pages) -> None:
    wrong = {(page, resolve(root, words)) for page, words in typed(project_pages, "plimsoll")}
    expect_none(sorted(pair for pair in wrong if pair[1]))


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not hasattr(command, "commands"):
        yield path
        return
    for name in command.list_commands(None):
        yield from leaves(inside(command, name), (*path, name))


def test_every_command_is_described(expect_none: ExpectNone, root: Root, project_pages: Pages) -> None:
    page = project_pages["docs/cli.md"]
    commands = [" ".join(path) for path in leaves(root, ("plimsoll",)) if path[1] != "lab"]
    expect_none([command for command in commands if f"`{command}" not in page])


def targets(project_root: Path) -> dict[str, str]:
    """Targets of the Makefile with their help."""
    lines = (project_root / "Makefile").read_text()
    return {hit[1]: hit[2] for hit in re.finditer(r"^([a-z][a-z-]*):[^=\n]*?(?:## *(.*))?$", lines, re.MULTILINE)}


def test_every_make_target_that_is_shown_exists(
    expect_none: ExpectNone, project_root: Path, project_pages: Pages
) -> None:
    known = targets(project_root)
    asked = {(page, word) for page, words in typed(project_pages, "make") for word in words[:1]}
    expect_none(sorted((page, word) for page, word in asked if re.fullmatch("[a-z-]+", word) and word not in known))


def test_every_make_target_has_its_help_and_its_place_in_the_readme(
    expect_none: ExpectNone, project_root: Path, project_pages: Pages
) -> None:
    known = targets(project_root)
    expect_none([name for name, help_ in known.items() if not help_])
    expect_none([name for name in known if f"make {name}" not in project_pages["README.md"]])


def test_every_module_that_is_run_exists(expect_none: ExpectNone, project_root: Path, project_pages: Pages) -> None:
    asked = {
        (page, hit[1])
        for page, text in project_pages.items()
        for line in code(text)
        for hit in re.finditer(r"python3? -m ((?:services|lab|tests)[\w.]*)", line)
    }
    expect_none(sorted(pair for pair in asked if importlib.util.find_spec(f"{pair[1]}.__main__") is None))


def test_examples_in_json_and_toml_can_be_read(expect_none: ExpectNone, project_pages: Pages) -> None:
    readers = {"json": json.loads, "toml": tomllib.loads}
    wrong = []
    for page, text in project_pages.items():
        for kind, block in re.findall(r"^```(json|toml)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            try:
                readers[kind](block)
            except ValueError as error:
                wrong.append(f"{page}: {error}: {block[:60]!r}")
    expect_none(wrong)


def test_the_policy_allows_what_the_provider_calls_and_no_more(project_root: Path, project_pages: Pages) -> None:
    policies = []
    for page in ("README.md", "docs/ipam-aws.md"):
        blocks = re.findall(r"^```json\n(.*?)^```", project_pages[page], re.MULTILINE | re.DOTALL)
        policies += [found for block in blocks if "Statement" in (found := json.loads(block))]
    policy, same = policies
    assert policy == same
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    source = "".join(path.read_text() for path in (project_root / "ipam" / "providers").glob("aws*.py"))
    known = botocore.session.get_session().get_service_model("ec2").operation_names
    called = set(re.findall(r'"([A-Z]\w+)"', source)) & set(known)
    # Tags are put on with the creation; EC2 asks for the right to tag all the same.
    assert allowed == {f"ec2:{call}" for call in called} | {"ec2:CreateTags"}


# What each call of the Azure provider needs; join/action comes with what a written resource refers to.
_OF_A_SET = "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/networkInterfaces/read"
AZURE = {
    "NetworkInterfaces.Get": "Microsoft.Network/networkInterfaces/read",
    "NetworkInterfaces.List": "Microsoft.Network/networkInterfaces/read",
    "NetworkInterfaces.Put": "Microsoft.Network/networkInterfaces/write",
    "NetworkSecurityGroups.List": "Microsoft.Network/networkSecurityGroups/read",
    "Operations.Get": "Microsoft.Network/locations/operations/read",
    "PublicIPAddresses.List": "Microsoft.Network/publicIPAddresses/read",
    "PublicIPAddresses.Put": "Microsoft.Network/publicIPAddresses/write",
    "PublicIPPrefixes.List": "Microsoft.Network/publicIPPrefixes/read",
    "ResourceSkus.List": "Microsoft.Compute/skus/read",
    "ScaleSetInterfaces.Get": _OF_A_SET,
    "ScaleSetInterfaces.List": "Microsoft.Compute/virtualMachineScaleSets/networkInterfaces/read",
    "ScaleSetMachineInterfaces.List": _OF_A_SET,
    "ScaleSetMachines.Get": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read",
    "ScaleSetMachines.List": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/read",
    "ScaleSetMachines.Put": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines/write",
    "ScaleSets.List": "Microsoft.Compute/virtualMachineScaleSets/read",
    "VirtualMachines.Get": "Microsoft.Compute/virtualMachines/read",
    "VirtualMachines.List": "Microsoft.Compute/virtualMachines/read",
    "VirtualNetworks.List": "Microsoft.Network/virtualNetworks/read",
    "VirtualNetworks.Usages": "Microsoft.Network/virtualNetworks/usages/read",
}


def test_the_role_of_azure_too(project_root: Path, project_pages: Pages) -> None:
    blocks = re.findall(r"^```json\n(.*?)^```", project_pages["docs/ipam-azure.md"], re.MULTILINE | re.DOTALL)
    (role,) = (found for block in blocks if "Actions" in (found := json.loads(block)))
    source = (project_root / "ipam" / "providers" / "azure_client.py").read_text()
    called = set(re.findall(r'"([A-Za-z]+\.(?:Get|List|Put|Usages))"', source))
    assert called == AZURE.keys()
    allowed = {action for action in role["Actions"] if not re.search(r"/join\w*/action$", action)}
    operations = "Microsoft.Compute/locations/operations/read"  # Operations.Get asks either of the two
    assert allowed == {*AZURE.values(), operations}


def test_the_policy_of_alibaba_cloud_too(project_root: Path, project_pages: Pages) -> None:
    blocks = re.findall(r"^```json\n(.*?)^```", project_pages["docs/ipam-alibaba.md"], re.MULTILINE | re.DOTALL)
    (policy,) = (found for block in blocks if "Statement" in (found := json.loads(block)))
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    source = (project_root / "ipam" / "providers" / "alibaba.py").read_text()
    calls = (known for name in re.findall(r'"([A-Z]\w+)"', source) if (known := ALIBABA.get(name)))
    called = {f"{'ecs' if each.version == ECS else 'vpc'}:{each.name}" for each in calls}
    assert allowed == called


def anchors(text: str) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ +(.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_lead_somewhere(expect_none: ExpectNone, project_pages: Pages, project_files: list[str]) -> None:
    broken = []
    folders = {str(parent) for path in project_files for parent in PurePosixPath(path).parents}
    for page, text in project_pages.items():
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            full = str(PurePosixPath(*_normal(PurePosixPath(page).parent / path))) if path else page
            exists = full in project_files or full in folders
            if not exists or (anchor and anchor not in anchors(project_pages.get(full, ""))):
                broken.append((page, target))
    expect_none(broken)


def _normal(path: PurePosixPath) -> list[str]:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return parts


def test_every_page_can_be_found_from_the_index(expect_none: ExpectNone, project_pages: Pages) -> None:
    index = project_pages["docs/README.md"]
    names = {PurePosixPath(page).name for page in project_pages if page.startswith("docs/")} - {"README.md"}
    runbooks = [page.removeprefix("deploy/") for page in project_pages if page.startswith("deploy/runbooks/")]
    expect_none([name for name in names if f"]({name})" not in index])
    expect_none([page for page in runbooks if f"](../deploy/{page})" not in index])
