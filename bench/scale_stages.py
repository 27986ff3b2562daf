"""The stages that bench.scale measures: what each does, and what is made before it."""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import takewhile
from typing import Any

from bench.duplicates import draw_crowd
from bench.scale_world import FOLDER_IMAGES, World, make_pictures
from dreamloom.base.models.clip import load_clip
from dreamloom.base.progress import silent
from dreamloom.curate import score
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules.dedupe import NONE, near_duplicates
from dreamloom.curate.rules.duplicates import likeness
from dreamloom.flows.chain import chain
from dreamloom.flows.chain.steps import BalanceStep, Step
from dreamloom.flows.commands import project as commands
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.filter import filter_laion
from dreamloom.train.loop.loop import train

Work = Callable[[], object]
"""What is measured; if it returns a dictionary, these are further figures."""

_NEW = 10**7
"""Number of an image that is new, beyond all others."""
SCORED = 20
"""One image of so many is scored."""
FIRST_STEP_EPOCHS = 20


@dataclass(frozen=True)
class Stage:
    """A stage, or a command."""

    prepare: Callable[[World], Work]
    """Makes what is measured."""
    before: Sequence[Callable[[World], object]]
    """What is done before, each once over a world and in a process of its own."""
    of_images: bool = False
    """Whether it is over a world of images; else over drawn tables."""


# What is measured


def filter_index(world: World) -> Work:
    """Selects candidates of an index of as many rows."""
    config = FilterConfig(index=[str(world.index)], words={"any": ["woman", "dog", "house"]}, min_side=256)  # type: ignore[arg-type]
    return lambda: filter_laion(Collection(world.folder / "filtered"), config)


def search_near_duplicates(world: World) -> Work:
    """Searches drawn embeddings."""
    hashes, vectors, is_copy = draw_crowd("spread", world.images)
    alike = likeness(ChooseConfig(near_duplicates="similar"))  # type: ignore[arg-type]

    def search() -> dict[str, float]:
        repeats = near_duplicates(hashes, alike, vectors.__getitem__)
        return {"recall": round(float((repeats[is_copy] != NONE).mean()), 4)}

    return search


def steps_of(stage: str) -> Callable[[World], Work]:
    """Returns what makes the steps of the chain that have this name."""

    def prepare(world: World) -> Work:
        steps = [step for step in until_balance(world) if step.stage == stage]
        return lambda: [step.run(silent) for step in steps]

    return prepare


def score_some(world: World) -> Work:
    """Scores a part of the images with the demo's CLIP, which is loaded before."""
    config = world.project.score
    assert config is not None
    files = sorted((world.folder / "world").rglob("*.jpg"))[::SCORED]
    rows = [{"key": file.stem, "image": file.relative_to(world.folder), "text": file.stem} for file in files]
    score.score_records(world.folder.joinpath, config, rows[:32])
    return lambda: score.score_records(world.folder.joinpath, config, rows)


def run_nothing(world: World) -> Work:
    """Runs the chain over what is finished."""
    return lambda: quietly(lambda: commands.run(world.folder, track=False))


def plan(world: World) -> Work:
    """Plans a run over what is finished."""
    return lambda: quietly(lambda: commands.plan(world.folder))


def show(world: World) -> Work:
    """Shows a finished workspace."""
    workspace, sheet = world.project.workspace, world.folder / "sheet.png"
    return lambda: quietly(lambda: commands.show(workspace, output=sheet))


def add_one(world: World) -> Work:
    """Adds an image behind the others, and takes it through all stages up to the training folder."""
    steps = until_balance(world)
    scoring = world.project.score
    assert scoring is not None
    new = f"{_NEW // FOLDER_IMAGES:05d}"
    added = sum(1 for _ in (world.folder / "world").glob(f"{new}/*"))  # by earlier runs over a world that was kept
    make_pictures(world.folder / "world", 1, first=_NEW + added)
    load_clip(scoring, scoring.device)
    return lambda: [step.run(silent) for step in steps]


class FirstStep(Exception):
    """The first step is taken."""


def begin_to_train(world: World) -> Work:
    """Begins to train on all images, which another start has seen before."""
    import_module("dreamloom.train.loop.session")  # torch, which takes seconds, however many images there are
    return lambda: take_first_step(world)


def take_first_step(world: World) -> None:
    """Begins a run of 20 epochs, and breaks it off after its first step."""
    project = world.project
    epochs = {"epochs": FIRST_STEP_EPOCHS, "max_train_steps": None, "evaluate_every_n_steps": 0}
    config = project.train.model_copy(update=epochs)

    def break_off(done: int, total: int | None, note: str = "") -> None:
        if "images/s" in note:
            raise FirstStep

    with contextlib.suppress(FirstStep):
        train(project.workspace / "dataset", world.folder / "run", config, None, break_off)


# What is there before


def until_balance(world: World) -> list[Step]:
    """Returns the steps of the chain up to the training folder."""
    steps = [step for level in chain.levels(world.project) for branch in level.branches for step in branch]
    return steps[: 1 + next(n for n, step in enumerate(steps) if isinstance(step, BalanceStep))]


def choose(world: World) -> None:
    """Chooses images."""
    steps_of("choose")(world)()


def choose_and_caption(world: World) -> None:
    """Brings in images, draws their scores, and makes what the training folder is made from."""
    steps_of("ingest")(world)()
    world.draw_scores()
    for step in takewhile(lambda step: not isinstance(step, BalanceStep), until_balance(world)):
        step.run(silent)


def finish(world: World) -> None:
    """Runs the chain to its end."""
    chain.run(world.project, run_step)


def run_step(step: Step) -> Any:
    """Runs a step without showing anything."""
    return step.run(silent)


def quietly(command: Callable[[], None]) -> None:
    """Calls a command without its output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        command()


_IMAGES = (World.make_images,)
_CAPTIONED = (*_IMAGES, choose_and_caption)
_FINISHED = (*_CAPTIONED, finish)

STAGES: Mapping[str, Stage] = {
    "filter": Stage(filter_index, [World.make_index]),
    "near_duplicates": Stage(search_near_duplicates, []),
    "choose": Stage(steps_of("choose"), [World.draw_tables]),
    "caption": Stage(steps_of("caption"), [World.draw_tables, choose]),
    "ingest": Stage(steps_of("ingest"), _IMAGES, of_images=True),
    "score": Stage(score_some, _IMAGES, of_images=True),
    "balance": Stage(steps_of("balance"), _CAPTIONED, of_images=True),
    "noop": Stage(run_nothing, _FINISHED, of_images=True),
    "plan": Stage(plan, _FINISHED, of_images=True),
    "show": Stage(show, _FINISHED, of_images=True),
    "first_step": Stage(begin_to_train, (*_FINISHED, take_first_step), of_images=True),
    "add_one": Stage(add_one, _FINISHED, of_images=True),
}
"""Name → stage, in the order in which they are measured over a world."""
