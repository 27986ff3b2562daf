"""The pages: their YAML is valid, their commands and flags exist, and their links lead somewhere."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import App

from dreamloom.flows.commands.cli import app
from dreamloom.flows.project.project import Project

HOUSE = Path(__file__).parents[2]
PAGES = [HOUSE / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((HOUSE / "docs").glob("*.md"))
PAGES_OF_TODAY = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""The changelog names flags of earlier versions."""
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S))
]
SMALLEST: dict[str, Any] = {"name": "page", "workspace": "work"}
SOURCE = {"kind": "folder", "role": "training", "path": "images"}

OF_OTHERS = {"--rated_dataset"}
"""Flags of other programs that pages name in prose."""
OTHER_PROGRAMS = (
    "pip",
    "tensorboard",
    "torchrun",
    "accelerate",
    "wandb",
    "git",
    "make",
    "pytest",
    "uv",
    "prefect",
    "systemctl",
)
EVENTS = {"model.ready", "run.failed", "limit.exceeded"}
"""What names an event of Prefect, and no module."""
LAUNCHERS = ("dreamloom", "torchrun", "accelerate")


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of each command in a page's blocks: without comments, with its variables put in."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    variables = dict(re.findall(r'^ {4,}([A-Z]+)="(.*)"$', text, re.M))
    for line in re.findall(r"^ {4,}(\S.*)$", text, re.M):
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # prose or a drawing with a quote in it
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            yield words


OURS = [
    pytest.param(words[words.index("dreamloom") + 1 :], id=page.name)
    for page in PAGES_OF_TODAY
    for words in command_lines(page)
    if words[0] in LAUNCHERS
]
MODULES = [
    pytest.param(words[2], words[3:], id=f"{page.name}-{words[2]}")
    for page in PAGES_OF_TODAY
    for words in command_lines(page)
    if words[:2] == ["python", "-m"]
]


def commands(parent: App, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """All commands with their names: ("caption", "edit")."""
    for name in parent:
        if not name.startswith("-"):
            yield (*names, name), parent[name]
            yield from commands(parent[name], (*names, name))


@cache
def flags() -> dict[tuple[str, ...], set[str]]:
    """The flags of each command."""
    return {
        names: {flag for argument in command.assemble_argument_collection() for flag in argument.names}
        for names, command in commands(app)
        if command.default_command
    }


@pytest.mark.parametrize("block", BLOCKS)
def test_yaml_is_a_project_or_sections_of_one(block: str) -> None:
    content = SMALLEST | yaml.safe_load(block)
    named = dict.fromkeys(content.get("caption", {}).get("templates", {}), SOURCE)
    Project.model_validate({**content, "sources": {"own": SOURCE, **named, **content.get("sources", {})}})


def test_the_readme_shows_the_demo_s_project() -> None:
    assert (HOUSE / "demo" / "project.yaml").read_text("utf-8") in (HOUSE / "README.md").read_text("utf-8")


@pytest.mark.parametrize("words", OURS)
def test_commands_can_be_given_as_they_stand(words: list[str]) -> None:
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize(("module", "words"), MODULES)
def test_modules_exist_and_have_the_flags_that_they_are_given(module: str, words: list[str]) -> None:
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= flags_of_module(module)


@pytest.mark.parametrize("page", PAGES_OF_TODAY, ids=lambda page: page.name)
def test_flags_in_prose_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    every = set().union(*flags().values(), {"--help", "--version", "--verbose"}, OF_OTHERS)
    every |= set().union(*map(flags_of_module, re.findall(r"python -m (bench\.\w+|dreamloom[\w.]+)", text)))
    wrong = []
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"^ {4}.*$", "", text, flags=re.M)):
        words = code.split()
        if words[0] in (*OTHER_PROGRAMS, "python"):
            continue
        known = flags_of_command(words) if words[0] == "dreamloom" else every
        wrong += [word for word in words if re.match("--[a-z]", word) and word.partition("=")[0] not in known]
    assert not wrong


def flags_of_command(words: list[str]) -> set[str]:
    """The flags of a command as it is written: dreamloom caption edit FOLDER …"""
    names = next((tuple(words[1:end]) for end in (3, 2) if tuple(words[1:end]) in flags()), None)
    return {"--help", "--version", "--verbose"} | (flags()[names] if names else set())


def flags_of_module(module: str) -> set[str]:
    """The flags that a script's text defines or passes on."""
    file = HOUSE.joinpath(*module.removeprefix("dreamloom.").split(".")).with_suffix(".py")
    return set(re.findall(r'"(--[a-z][\w-]*)"', file.read_text("utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_link_to_what_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES_OF_TODAY, ids=lambda page: page.name)
def test_files_and_modules_in_code_are_there(page: Path) -> None:
    """What a page names of the repository: `train/config.py`, `dreamloom.train.config`."""
    text = page.read_text("utf-8")
    packages = "base|scrape|caption|curate|train|flows|demo|bench|tests|docs"
    files = {HOUSE / name for name in re.findall(rf"`((?:{packages})/[\w/]+\.\w+)`", text)}
    names = set(re.findall(r"`dreamloom\.([a-z_.]+)`", text)) - EVENTS
    modules = {HOUSE.joinpath(*name.split(".")) for name in names}
    missing = {file for file in files if "NAME" not in file.name and not file.exists()}
    missing |= {module for module in modules if not (module.is_dir() or module.with_suffix(".py").exists())}
    assert not missing
