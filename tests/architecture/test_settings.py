"""The pages and examples name the settings that there are, and units start the services that there are."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from services.cli.service_settings import markdown, names, settings_class
from services.runtime.settings import load
from services.runtime.settings_text import fields_of

ExpectNone = Callable[..., None]
Pages = dict[str, str]

# Environment of the command itself; services' variables come from their settings.
VARIABLES = {"PLIMSOLL_CONTEXT", "PLIMSOLL_DEBUG"}


@pytest.mark.parametrize("service", names())
def test_every_setting_is_described(service: str, project_pages: Pages) -> None:
    page = project_pages["docs/settings.md"]
    section = re.search(rf"^## {service}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section, f"docs/settings.md has no section {service}"
    assert section[1].strip() == markdown(service).strip(), "docs/settings.md is behind: run deploy/settings-page.sh"


def test_every_variable_that_is_shown_exists(expect_none: ExpectNone, project_pages: Pages) -> None:
    known = set(VARIABLES)
    for service in names():
        cls = settings_class(service)
        prefix = cls.model_config["env_prefix"].upper()
        known |= {prefix, *(prefix + dotted.upper().replace(".", "__") for dotted, _ in fields_of(cls))}
    shown = {
        (page, hit[0]) for page, text in project_pages.items() for hit in re.finditer(r"\bPLIMSOLL_[A-Z0-9_]+", text)
    }
    expect_none(sorted(pair for pair in shown if pair[1] not in known))


@pytest.mark.parametrize("service", names())
def test_the_example_on_its_page_is_taken(service: str, project_pages: Pages, tmp_path: Path) -> None:
    page = project_pages[f"docs/{service}.md"]
    fenced = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"((?:^    (?:\w+ = .*|\[\w+\])\n){3,})", page, re.MULTILINE)
    examples = fenced or [textwrap.dedent(block) for block in indented]
    assert examples, f"docs/{service}.md shows no settings file"
    path = tmp_path / "example.toml"
    path.write_text(examples[0])
    load(settings_class(service), ["--config", str(path)], environ={})


def settings_files() -> list[Path]:
    return sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.toml"))


@pytest.mark.parametrize("path", settings_files(), ids=lambda path: path.stem)
def test_example_settings_are_taken(path: Path) -> None:
    if path.stem == "context":
        return
    load(settings_class(path.stem), ["--config", str(path)], environ={})


def test_every_service_has_an_example_and_a_unit(project_root: Path) -> None:
    folder = project_root / "deploy" / "systemd"
    assert sorted(path.stem for path in folder.glob("*.toml")) == sorted([*names(), "context"])
    units = {path.stem.removeprefix("plimsoll-") for path in folder.glob("*.service")}
    assert units == {*names(), "redis"}
    for service in names():
        unit = (folder / f"plimsoll-{service}.service").read_text()
        assert f"-m services.{service.replace('-', '_')} --config /etc/plimsoll/{service}.toml" in unit


@pytest.mark.tool("systemd-analyze")
@pytest.mark.parametrize("service", names())
def test_units_are_understood_by_systemd(
    expect_none: ExpectNone, service: str, project_root: Path, tmp_path: Path
) -> None:
    # The program's place differs between machines: any that exists will do for the check.
    unit = (project_root / f"deploy/systemd/plimsoll-{service}.service").read_text()
    path = tmp_path / f"plimsoll-{service}.service"
    path.write_text(re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", unit, flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if path.name in line]
    expect_none(complaints)
