"""The chain over a whole project: its steps, their order, and how they are run.

Sources are brought in side by side. From then on one step follows another, as each uses the whole machine. A step that
fails ends its branch; the other branches of its level go on, and the chain stops when they are done.
"""

import contextvars
import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.tree_state import looking_once
from dreamloom.base.models.clip import unload_clip
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.caption.captioners import unload_captioners
from dreamloom.curate.adopt import refuse_hand_changes
from dreamloom.curate.manifest import manifest_path
from dreamloom.curate.source import note_store
from dreamloom.flows.chain import steps, train_steps
from dreamloom.flows.chain.collection_users import note_project
from dreamloom.flows.chain.found_again import rename_collections
from dreamloom.flows.chain.ray_engine import end_idle_workers
from dreamloom.flows.chain.steps import Outcome, Step
from dreamloom.flows.chain.train_steps import LimitExceeded
from dreamloom.flows.project import run_folders
from dreamloom.flows.project.project import Project
from dreamloom.flows.project.prune import Removal, plan_removals
from dreamloom.flows.project.ray_config import RayConfig
from dreamloom.flows.project.sources import kind_config, kind_of
from dreamloom.flows.project.workspace import report_path
from dreamloom.flows.terminal.logs import PRINTED, log_to_file
from dreamloom.scrape.collection import Table
from dreamloom.train.evaluate.config import as_trained
from dreamloom.train.evaluate.results import read_evaluation
from dreamloom.train.evaluate.runs import find_runs
from dreamloom.train.loop.limits import has_limits, tell_broken
from dreamloom.train.run.folder import read_summary

_log = logging.getLogger(__name__)

Branch = Sequence[Step]
"""Steps that are run one after another."""


@dataclass(frozen=True)
class Level:
    """Branches that do not depend on one another. The next level begins when all are done."""

    branches: Sequence[Branch]
    side_by_side: bool = False
    afterwards: Callable[[], None] | None = None
    """Called when the level is done."""


def levels(project: Project) -> list[Level]:
    """Returns all steps of a project, in order."""
    collections = [project.collection(name) for name in project.sources]
    ray = _ray_config(project)
    scores = [[steps.ScoreStep(c, project.score, ray=ray)] for c in collections] if project.score else []
    captions = [[steps.CaptionStep(c, project.caption_config(c.name), ray=ray)] for c in collections]
    return [
        Level([_source_branch(project, name) for name in project.sources], side_by_side=True),
        Level(scores),
        Level([[steps.ChooseStep(project.all_sources(), project.choose_config())]]),
        Level(captions, afterwards=unload_models),
        Level([_model_branch(project)]),
    ]


@looking_once()
def run(
    project: Project, run_step: Callable[[Step], Outcome], selected: Sequence[Level] | None = None
) -> list[Outcome]:
    """Runs the chain, or some steps of it, and writes the report where a model came of it.

    Args:
        run_step: runs one step and shows its progress.
        selected: the steps (dreamloom.flows.chain.selection); None: all.

    Returns:
        The outcome of each step. The last one is not `finished` where training was asked to stop.

    Raises:
        UserError: another process works on the project, its training folder was changed by hand, or something that a
            step needs is missing.
        LimitExceeded: the model forgot more than its limits allow, and is not published.
        ExceptionGroup: branches failed.
    """
    outcomes: list[Outcome] = []
    with lock(project.workspace), log_to_file(project.workspace / "logs", project):
        _log.info("run of %s", project.name)
        _reject_unused_scores(project)
        refuse_hand_changes(project.workspace)
        rename_collections(project)
        note_project(project)
        note_store(project.workspace, project.store, list(project.sources))
        try:
            for level in levels(project) if selected is None else selected:
                outcomes += _run_level(level, run_step)
                if level.afterwards is not None:
                    level.afterwards()
        except LimitExceeded:
            _write_report(project)
            raise
        if (selected is None or _has_model_steps(selected)) and _report_is_due(project, outcomes):
            _write_report(project)
        if project.keep_runs is not None and outcomes and outcomes[-1].finished:
            prune_runs(project)
    return outcomes


def plan_prune(project: Project, keep: int | None) -> list[Removal]:
    """Decides which of a project's runs can go (dreamloom.flows.project.prune)."""
    current = run_folder(project) if manifest_path(project.workspace).exists() else None
    return plan_removals(find_runs(project.workspace), project.workspace, keep, current)


def prune_runs(project: Project) -> None:
    """Removes the runs that `keep_runs` leaves out, and what the others keep only to go on."""
    for removal in plan_prune(project, project.keep_runs):
        if removal.what != "keep":
            _log.info("%s: %s (%s)", removal.what, removal.run.folder, removal.why)
            removal.apply()


def unload_models() -> None:
    """Frees the memory of the models that scored and captioned, as training needs all of it."""
    unload_captioners()
    unload_clip()
    end_idle_workers()
    if "torch" in sys.modules:  # not so where nothing had to be made
        import torch

        torch.cuda.empty_cache()


def run_folder(project: Project) -> Path:
    """Returns the folder of the training run of the dataset as it is now; it need not exist yet.

    Where that run is postponed (train.when), it is that of the last finished run.

    Raises:
        UserError: there is no dataset yet.
    """
    config = project.train_config()
    if project.train.when is not None:
        postponed = run_folders.find_postponed(project.workspace, config, project.train.when.new_images)
        if postponed is not None:
            return postponed.last
    return run_folders.run_folder(project.workspace, config)


def broken_limits(project: Project, evaluate: Step | None) -> str:
    """Returns which limits of train the project's model is beyond, in a sentence; empty if it is within them.

    By the evaluate stage where the project has one, as that measures against `train.base` also where a run continued
    another; else by the run's own evaluation.

    Raises:
        UserError: there are limits, and nothing tells what this model forgot.
    """
    if not has_limits(project.train):
        return ""
    evaluated = run_folder(project) if evaluate is None else evaluation_path(project)
    evaluation = read_evaluation(evaluated) if evaluate is None or not evaluate.stale_parts() else None
    if evaluation is None:
        remedy = "run evaluate first" if evaluate else "hold images out (balance.held_out)"
        raise UserError(f"train has limits, and it is not known what {run_folder(project)} forgot; {remedy}.")
    return tell_broken(evaluation.to_dict(), project.train)


def _has_model_steps(selected: Sequence[Level]) -> bool:
    return any(
        step.stage in ("train", "evaluate", "export") for level in selected for b in level.branches for step in b
    )


def _write_report(project: Project) -> None:
    from dreamloom.flows.report.changes import note_changes
    from dreamloom.flows.report.report import write_report

    note_changes(project.workspace)
    evaluation = evaluation_path(project) if project.evaluate is not None else None
    evaluation = evaluation if evaluation and evaluation.exists() else None  # evaluate may not be selected
    write_report(project.name, project.workspace, run_folder(project), evaluation)


def _report_is_due(project: Project, outcomes: Sequence[Outcome]) -> bool:
    is_changed = any(outcome.changed for outcome in outcomes) or not report_path(project.workspace).exists()
    return outcomes[-1].finished and is_changed


def is_trained(project: Project) -> bool:
    """Whether there is a dataset, and its training run is finished."""
    return manifest_path(project.workspace).exists() and read_summary(run_folder(project)) is not None


def _ray_config(project: Project) -> RayConfig | None:
    return project.ray if project.engine == "ray" else None


def _source_branch(project: Project, name: str) -> Branch:
    source, collection = project.sources[name], project.collection(name)
    kind, config = kind_of(source), kind_config(source)
    ray = _ray_config(project)
    branch: list[Step] = [steps.source_step(collection, kind, config, ray)]
    if kind.needs_scrape(config):
        branch.append(steps.ScrapeStep(collection, project.scrape, ray=ray))
    return branch


def _model_branch(project: Project) -> Branch:
    workspace = project.workspace

    def current_run() -> Path:
        return run_folder(project)

    branch: list[Step] = [
        steps.BalanceStep(project.all_sources(), project.balance, workspace, project.store),
        train_steps.ProjectTrainStep(
            workspace, project.train_config(), project.train.when.new_images if project.train.when else 0
        ),
    ]
    evaluate: Step | None = None
    if project.evaluate is not None:
        config = as_trained(project.train_config(), project.evaluate)
        heldout, output = workspace / "heldout", evaluation_path(project)
        evaluate = train_steps.EvaluateStep(current_run, project.train.base, heldout, config, output)
        branch.append(evaluate)
    export = project.export.model_copy(update={"title": project.export.title or project.name})
    model, broken = workspace / "model", partial(broken_limits, project, evaluate)
    return [*branch, train_steps.PublishStep(current_run, model, export, broken)]


def evaluation_path(project: Project) -> Path:
    """Returns the file of the project's evaluate section."""
    return project.workspace / "report" / "evaluation.json"


def _reject_unused_scores(project: Project) -> None:
    """Raises UserError where scores exist that the project does not ask for: choose would still use them."""
    for name in project.sources:
        if project.score is None and project.collection(name).parts(Table.SCORES):
            raise UserError(
                f"{name} has scores, but the project has no score section: put it back, or delete "
                f"{project.collection(name).where}/{Table.SCORES}."
            )


def _run_level(level: Level, run_step: Callable[[Step], Outcome]) -> list[Outcome]:
    if len(level.branches) == 1:  # in this thread: only the main thread can catch SIGTERM and save
        return _run_branch(level.branches[0], run_step)
    pool = ThreadPoolExecutor(max(1, len(level.branches)) if level.side_by_side else 1)
    try:
        # each with a copy of the context, from which Prefect knows the run that a thread belongs to
        futures = [pool.submit(contextvars.copy_context().run, _run_branch, b, run_step) for b in level.branches]
        errors = [error for future in futures if (error := future.exception())]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if errors:
        raise BaseExceptionGroup(f"{len(errors)} of {len(futures)} branches failed", errors)
    return [outcome for future in futures for outcome in future.result()]


def _run_branch(branch: Branch, run_step: Callable[[Step], Outcome]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for step in branch:
        outcomes.append(run_step(step))
        _log.info("%s", outcomes[-1].message, extra=PRINTED)
        if not outcomes[-1].finished or outcomes[-1].ends_branch:
            break
    return outcomes
