"""Help pages: flags stand in the groups that the config's fields name."""

from pathlib import Path
from typing import Annotated

import pytest
from cyclopts import App, Parameter
from pydantic import Field

from dreamloom.base.stage import Group, StageConfig
from dreamloom.flows.commands import cli
from dreamloom.flows.terminal.help_pages import HelpPage


class InnerConfig(StageConfig):
    hue: Annotated[int, Group("Model")] = Field(3, description="A hue.")


class PaintConfig(StageConfig):
    color: Annotated[str, Group("Painting")] = Field("red", description="A color.")
    sides: Annotated[tuple[str, ...], Group("Painting")] = Field(("front", "back"), description="Sides.")
    steps: Annotated[int, Group("Speed")] = Field(description="Steps; they have no default.")
    coats: int = Field(2, description="Coats.")
    workers: Annotated[int, Group("Speed")] = Field(1, description="Workers.")
    glossy: Annotated[bool, Group("Painting")] = Field(False, description="With gloss.")
    primed: Annotated[bool, Group("Painting")] = Field(True, description="With primer.")
    inner: Annotated[InnerConfig, Group("Painting")] = Field(InnerConfig(), description="More.")


def paint(wall: Path, *, config: Annotated[PaintConfig, Parameter(name="*")]) -> None:
    """Paints a wall."""


def panels(text: str) -> dict[str, str]:
    """Title → content of each panel of a help page."""
    found = (panel.partition("\n") for panel in text.split("╭─ ")[1:])
    return {head.split(" ─")[0]: body for head, _, body in found}


def test_flags_stand_in_their_groups_and_what_is_required_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    app = App(name="app", help_formatter=HelpPage(f"{__name__}:paint"))
    app.default(paint)
    app(["--help"], result_action="return_value")
    shown = panels(capsys.readouterr().out)
    assert list(shown) == ["Commands", "Parameters", "Painting", "Speed"]
    assert [flag in shown["Parameters"] for flag in ("WALL", "--steps", "--coats", "--color")] == [True] * 3 + [False]
    assert all(flag in shown["Painting"] for flag in ("--color", "--sides", "--glossy", "--inner.hue"))
    assert "--workers" in shown["Speed"]


def test_switches_and_defaults_that_tell_nothing_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    app = App(name="app", help_formatter=HelpPage(f"{__name__}:paint"))
    app.default(paint)
    app(["--help"], result_action="return_value")
    out = capsys.readouterr().out
    assert "--no-glossy" not in out and "[default: False]" not in out and "--empty-sides" not in out
    assert "--no-primed" in out and "[default: True]" in out and "[default: front, back]" in out


def test_the_page_of_a_command_is_in_the_groups_of_its_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["scrape", "--help"]) == 0
    shown = panels(capsys.readouterr().out)
    assert "--retry" in shown["Parameters"]
    assert "--concurrency-per-host" in shown["Politeness"]
    assert list(shown)[-1] == "Other"


def test_what_most_people_set_of_a_training_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--help"]) == 0
    titles = list(panels(capsys.readouterr().out))
    assert titles[:4] == ["Parameters", "Model", "Batches and length", "Learning rate"]
