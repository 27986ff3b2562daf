"""Which steps of a project are run: all of them, those up to a stage, or single stages of single sources."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from dreamloom.base.errors import UserError
from dreamloom.flows.chain.chain import Level, levels
from dreamloom.flows.chain.steps import Step
from dreamloom.flows.project.config_errors import suggestion
from dreamloom.flows.project.project import Project

StageName = Literal[
    "filter", "ingest", "scrape", "score", "choose", "caption", "balance", "train", "evaluate", "export"
]
STAGES: tuple[StageName, ...] = get_args(StageName)
"""The stages of a chain, in order."""


@dataclass(frozen=True)
class Selection:
    """What of a project is run; by default all of it."""

    only: Sequence[StageName] = ()
    """These stages alone, on what earlier ones made; empty: all."""
    until: StageName | None = None
    """The last stage; None: the chain's own."""
    sources: Sequence[str] = ()
    """Stages of one source are run for these alone; empty: for all."""

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole chain."""
        return self == ALL

    def stages(self) -> set[StageName]:
        """Returns the stages by name, whether or not a project has them."""
        before = STAGES if self.until is None else STAGES[: STAGES.index(self.until) + 1]
        return set(before) & set(self.only or STAGES)


ALL = Selection()


def select(project: Project, selection: Selection) -> list[Level]:
    """Returns the steps of a project that are selected, in order.

    Raises:
        UserError: the project has no such stage or source, or the selection is of a source and of a stage that takes
            all sources at once.
    """
    for name in selection.sources:
        project.collection(name)
    if selection.sources and not (selection.only or selection.until):
        raise UserError("A source alone has no chain; name its stages, too: only or until.")
    chosen = [_chosen(level, selection) for level in levels(project)]
    steps = [step for level in chosen for branch in level.branches for step in branch]
    _check(project, selection, steps)
    return [level for level in chosen if level.branches]


def _chosen(level: Level, selection: Selection) -> Level:
    stages, sources = selection.stages(), selection.sources

    def is_chosen(step: Step) -> bool:
        return step.stage in stages and (not step.source or not sources or step.source in sources)

    branches = [[step for step in branch if is_chosen(step)] for branch in level.branches]
    return replace(level, branches=[branch for branch in branches if branch])


def _check(project: Project, selection: Selection, steps: Sequence[Step]) -> None:
    """Raises UserError where nothing is left, a stage is not the project's, or it takes more than a single source."""
    for step in steps:
        if selection.sources and not step.source:
            raise UserError(f"{step.stage} takes all sources at once; leave the source out.")
    for stage in selection.only:
        if stage not in selection.stages():
            raise UserError(f"{stage} comes after {selection.until}; name a later stage for until, or leave it out.")
        if not any(step.stage == stage for step in steps):
            of_all = {step.stage for level in levels(project) for branch in level.branches for step in branch}
            where = (
                f"{', '.join(selection.sources)} of {project.name} has" if stage in of_all else f"{project.name} has"
            )
            raise UserError(f"{where} no stage {stage}; {suggestion(stage, _stages_of(project, selection.sources))}")
    if not steps:
        raise UserError(f"{project.name} begins after {selection.until}; name a later stage.")


def _stages_of(project: Project, sources: Sequence[str]) -> list[str]:
    steps = [step for level in levels(project) for branch in level.branches for step in branch]
    return list(dict.fromkeys(step.stage for step in steps if not sources or step.source in sources))
