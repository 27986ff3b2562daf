"""Whole projects from Python: what `dreamloom run` and `dreamloom plan` do, with results that a notebook can show."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dreamloom.base import html
from dreamloom.base.cpu import keep_freed_memory
from dreamloom.base.files.tree_state import looking_once
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.flows.chain import chain
from dreamloom.flows.chain.selection import Selection, StageName, select
from dreamloom.flows.chain.steps import IngestStep, Outcome, Step
from dreamloom.flows.plan import plan as planning
from dreamloom.flows.plan.forecast import measure_sources
from dreamloom.flows.plan.planned_steps import PlannedStep, plan_steps
from dreamloom.flows.project.project import Project, load_project
from dreamloom.flows.project.workspace import report_path
from dreamloom.flows.terminal.tables import balance_rows, funnel, funnel_rows
from dreamloom.flows.terminal.terminal import Terminal, print_line
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.datasets import all_kinds
from dreamloom.train.evaluate.measure import Evaluation
from dreamloom.train.evaluate.results import read_evaluation
from dreamloom.train.plan import Plan

ProjectLike = Project | Path | str
"""A project, its project.yaml, or the folder with it."""


@dataclass(frozen=True)
class ProjectRun:
    """What `run` made of a project, or found made already."""

    project: Project
    outcomes: tuple[Outcome, ...]
    """One for each step, in order."""

    @property
    def finished(self) -> bool:
        """False: training was asked to stop; the next `run` goes on."""
        return self.outcomes[-1].finished

    @property
    def run_folder(self) -> Path:
        """Folder of the training run: checkpoints, samples, logs."""
        return chain.run_folder(self.project)

    @property
    def model(self) -> Path:
        """Folder of the exported model."""
        return self.project.workspace / "model"

    @property
    def report(self) -> Path:
        """The report, a page of HTML."""
        return report_path(self.project.workspace)

    @property
    def evaluation(self) -> Evaluation | None:
        """What the model learned and forgot; None where nothing is held out."""
        file = chain.evaluation_path(self.project)
        return read_evaluation(file if self.project.evaluate is not None else self.run_folder)

    def _repr_html_(self) -> str:
        workspace = self.project.workspace
        tables = [html.table(funnel_rows(funnel(workspace, self.project.sources)))]
        if self.finished:
            tables.append(html.table(balance_rows(workspace)))
            tables.append(self.evaluation._repr_html_() if self.evaluation else "")
        return f"<b>{html.text(self.project.name)}</b>{''.join(tables)}<p>{html.text(workspace)}</p>"


@dataclass(frozen=True)
class ProjectPlan:
    """What `run` would do."""

    project: Project
    steps: tuple[PlannedStep, ...]
    """Each step, with the parts that it would make."""
    training: Plan | None
    """What an epoch would show; None where there is no training folder yet."""

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do."""
        return all(step.stale_parts == [] for step in self.steps)

    def _repr_html_(self) -> str:
        sizes = measure_sources(self.project)
        tables = [html.table(planning.source_rows(self.project, sizes)), html.table(planning.step_rows(self.steps))]
        if self.training is not None:
            lines = [planning.training_line(self.training), *self.training.notes]
            tables += map(html.table, (planning.training_rows(self.training), planning.bucket_rows(self.training)))
            tables += [f"<p>{html.text(line)}</p>" for line in lines]
        return f"<b>{html.text(self.project.name)}</b>{''.join(tables)}"


def run(
    project: ProjectLike = "project.yaml",
    *,
    only: Sequence[StageName] = (),
    until: StageName | None = None,
    sources: Sequence[str] = (),
) -> ProjectRun:
    """Makes everything that a project asks for and that is not there yet. Prints a line for each step.

    Args:
        project: its file, its folder, or what was read of them.
        only: run these stages alone, on what earlier ones made; empty: all.
        until: the last stage to run; None: all.
        sources: run the stages of one source for these alone; empty: for all.

    Raises:
        UserError: the project is wrong, something it needs is not there, or another process works on it.
        ExceptionGroup: steps failed; what the others made is kept.
    """
    loaded = _loaded(project)
    selected = select(loaded, Selection(only, until, sources))
    keep_freed_memory()
    with Terminal() as terminal:

        def run_step(step: Step) -> Outcome:
            with terminal.watch(step.title) as watched:
                outcome = step.run(watched)
            print_line(outcome.message)
            return outcome

        return ProjectRun(loaded, tuple(chain.run(loaded, run_step, selected)))


@looking_once()
def plan(project: ProjectLike = "project.yaml") -> ProjectPlan:
    """Says what `run` would do: what is there, what would be made, how many steps. Changes nothing.

    Raises:
        UserError: the project is wrong, or something it needs is not there.
    """
    loaded = _loaded(project)
    return ProjectPlan(loaded, tuple(plan_steps(loaded)), planning.plan_train(loaded))


def ingest(collection: Collection, config: StageConfig, progress: Progress = silent) -> Summary:
    """Brings images of this machine into a collection.

    Args:
        config: says what they are: a FolderConfig, a CocoConfig, or that of another kind of source.

    Raises:
        UserError: the images are not there, or are not of that kind.
    """
    for kind in all_kinds():
        if kind.config is type(config):
            return IngestStep(collection, kind, config).make_parts(progress, None)
    raise TypeError(f"{type(config).__name__} is the config of no kind of source")


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Shows the progress of a stage: bars in a terminal, a line now and then elsewhere.

    For example: `with dl.progress("score") as progress: dl.score(collection, config, progress)`.
    """
    with Terminal() as terminal, terminal.watch(title) as watched:
        yield watched


def _loaded(project: ProjectLike) -> Project:
    return project if isinstance(project, Project) else load_project(project)
