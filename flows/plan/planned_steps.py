"""What each step of a run would make, that has not begun. Writes nothing and does not import torch."""

from dataclasses import dataclass

from dreamloom.flows.chain.chain import levels
from dreamloom.flows.chain.steps import Step
from dreamloom.flows.chain.train_steps import SAMPLES
from dreamloom.flows.project.project import Project
from dreamloom.flows.report.contents import evenly_spaced

_SAMPLED_PARTS = 8
"""Stale parts that are opened to estimate how much of their work is left."""


@dataclass(frozen=True)
class PlannedStep:
    """A step of a run that has not begun."""

    step: Step
    stale_parts: list[str] | None
    """The parts that would be made; None: not known before earlier steps are done."""

    @property
    def seconds(self) -> float | None:
        """Estimated time, going by the parts that exist; None: not known."""
        if self.stale_parts == []:
            return 0.0
        existing = self.step.existing()
        if not self.stale_parts or not existing.parts_done or not existing.seconds:
            return None
        seconds_per_part = existing.seconds / existing.parts_done
        share = self.step.remaining_share(evenly_spaced(self.stale_parts, _SAMPLED_PARTS))
        return seconds_per_part * len(self.stale_parts) * share

    @property
    def bytes(self) -> int | None:
        """Bytes of images that it will write, going by the parts that exist; None: not known."""
        if self.stale_parts == []:
            return 0
        existing = self.step.existing()
        if not self.stale_parts or not existing.parts_done:
            return None
        return round(existing.bytes_written / existing.parts_done * len(self.stale_parts))


def plan_steps(project: Project) -> list[PlannedStep]:
    """Returns each step of the chain, in order."""
    planned: list[PlannedStep] = []
    for level in levels(project):
        level_is_blocked = any(map(_blocks, planned))
        for branch in level.branches:
            is_blocked = level_is_blocked
            for step in branch:
                planned.append(PlannedStep(step, None if is_blocked else step.stale_parts()))
                is_blocked = is_blocked or _blocks(planned[-1])
    return planned


def _blocks(planned: PlannedStep) -> bool:
    """Whether a step changes what later ones are made from; samples do not."""
    return planned.stale_parts not in ([], [SAMPLES])
