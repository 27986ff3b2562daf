"""The whole chain over a project: which steps there are, in which order, and how they are gone through.

Sources come in side by side; from then on one step follows another, as each wants the whole machine. A step that
fails ends its own branch. The others of its level go on, and the chain stops when they are done.
"""

import contextvars
import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dreamloom.base.clip import unload_clip
from dreamloom.base.errors import UserError
from dreamloom.base.files import lock
from dreamloom.caption.captioners import unload_captioners
from dreamloom.flows import run_folders, steps, train_steps
from dreamloom.flows.logs import PRINTED, log_to_file
from dreamloom.flows.project import Project
from dreamloom.flows.report import report_path, write_report
from dreamloom.flows.sources import kind_config, kind_of
from dreamloom.flows.steps import Outcome, Step
from dreamloom.scrape.collection import Table
from dreamloom.train.evaluate.config import as_trained

_log = logging.getLogger(__name__)

Branch = Sequence[Step]
"""Steps that follow one another."""


@dataclass(frozen=True)
class Level:
    """Branches that don't need one another; all are done before the next level begins."""

    branches: Sequence[Branch]
    side_by_side: bool = False
    then: Callable[[], None] | None = None
    """What is done once all of it is."""


def levels(project: Project) -> list[Level]:
    """All steps of a project, in order."""
    collections = [project.collection(name) for name in project.sources]
    scores = [[steps.ScoreStep(c, project.score)] for c in collections] if project.score else []
    return [
        Level([_incoming(project, name) for name in project.sources], side_by_side=True),
        Level(scores),
        Level([[steps.ChooseStep(project.all_sources(), project.choose)]]),
        Level([[steps.CaptionStep(c, project.captioning(c.name))] for c in collections], then=forget_models),
        Level([_model(project)]),
    ]


def run(project: Project, perform: Callable[[Step], Outcome]) -> list[Outcome]:
    """Goes through the chain, and writes the report of what came of it.

    Args:
        perform: runs one step to its end, and shows what it does.

    Returns:
        What each step came to. The last one is not `finished` where training was asked to stop.

    Raises:
        UserError: another process works on the project, or something that a step needs is not there.
        ExceptionGroup: branches failed.
    """
    outcomes: list[Outcome] = []
    with lock(project.workspace), log_to_file(project.workspace / "logs", project):
        _log.info("run of %s", project.name)
        _check_old_scores(project)
        for level in levels(project):
            outcomes += _go_through(level, perform)
            if level.then is not None:
                level.then()
        if outcomes[-1].finished and (any(o.changed for o in outcomes) or not report_path(project.workspace).exists()):
            evaluation = evaluation_path(project) if project.evaluate is not None else None
            write_report(project.name, project.workspace, run_folder(project), evaluation)
    return outcomes


def forget_models() -> None:
    """Lets go of the models that scored and captioned: training wants all memory for itself."""
    unload_captioners()
    unload_clip()
    if "torch" in sys.modules:  # what is there already needs none
        import torch

        torch.cuda.empty_cache()


def run_folder(project: Project) -> Path:
    """The folder of the training run that the dataset as it is now belongs to, or will belong to.

    Raises:
        UserError: there is no dataset yet.
    """
    return run_folders.run_folder(project.workspace, project.train)


def _incoming(project: Project, name: str) -> Branch:
    source, collection = project.sources[name], project.collection(name)
    kind, config = kind_of(source), kind_config(source)
    branch: list[Step] = [steps.source_step(collection, kind, config)]
    if kind.needs_scrape(config):
        branch.append(steps.ScrapeStep(collection, project.scrape))
    return branch


def _model(project: Project) -> Branch:
    workspace = project.workspace

    def run_now() -> Path:
        return run_folder(project)

    branch: list[Step] = [
        steps.BalanceStep(project.all_sources(), project.balance, workspace),
        train_steps.ProjectTrainStep(workspace, project.train),
    ]
    if project.evaluate is not None:
        config = as_trained(project.train, project.evaluate)
        heldout, output = workspace / "heldout", evaluation_path(project)
        branch.append(train_steps.EvaluateStep(run_now, project.train.base, heldout, config, output))
    return [*branch, train_steps.ExportStep(run_now, workspace / "model", project.export)]


def evaluation_path(project: Project) -> Path:
    """Returns the file of the project's evaluate section."""
    return project.workspace / "report" / "evaluation.json"


def _check_old_scores(project: Project) -> None:
    """Scores that the project does not ask for any more would still be chosen by."""
    for name in project.sources:
        if project.score is None and project.collection(name).parts(Table.SCORES):
            raise UserError(
                f"{name} has scores, but the project has no score section: put it back, or delete "
                f"{project.collection(name).root / Table.SCORES}."
            )


def _go_through(level: Level, perform: Callable[[Step], Outcome]) -> list[Outcome]:
    if len(level.branches) == 1:  # in this thread: only the main one can catch SIGTERM and save
        return _follow(level.branches[0], perform)
    pool = ThreadPoolExecutor(max(1, len(level.branches)) if level.side_by_side else 1)
    try:
        # each with a copy of the context, by which Prefect knows to which run a thread belongs
        futures = [pool.submit(contextvars.copy_context().run, _follow, b, perform) for b in level.branches]
        failed = [error for future in futures if (error := future.exception())]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if failed:
        raise BaseExceptionGroup(f"{len(failed)} of {len(futures)} branches failed", failed)
    return [outcome for future in futures for outcome in future.result()]


def _follow(branch: Branch, perform: Callable[[Step], Outcome]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for step in branch:
        outcomes.append(perform(step))
        _log.info("%s", outcomes[-1].message, extra=PRINTED)
        if not outcomes[-1].finished:
            break
    return outcomes
