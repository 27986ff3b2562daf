"""What a run would do, before it is run, as rows of tables. Writes nothing, needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dreamloom.flows.chain import levels
from dreamloom.flows.contents import evenly_spaced
from dreamloom.flows.project import Project
from dreamloom.flows.run_folders import newest_speed
from dreamloom.flows.sources import kind_of
from dreamloom.flows.steps import Step
from dreamloom.flows.terminal import duration, print_table, rows_table, size
from dreamloom.train.plan import Plan
from dreamloom.train.plan import plan as plan_training

Rows = list[dict[str, Any]]

_SAMPLED_PARTS = 8
"""Stale parts that are opened to see how much of their work is left; the others are taken to be like them."""


@dataclass(frozen=True)
class PlannedStep:
    """A step, and what would become of it."""

    step: Step
    stale_parts: list[str] | None
    """The parts that would be made; None: that is known when what it needs has been made."""

    @property
    def seconds(self) -> float | None:
        """How long it would take, going by how long what is there took; None: not known."""
        if self.stale_parts == []:
            return 0.0
        existing = self.step.existing()
        if not self.stale_parts or not existing.parts_done or not existing.seconds:
            return None
        seconds_per_part = existing.seconds / existing.parts_done
        share = self.step.remaining_share(evenly_spaced(self.stale_parts, _SAMPLED_PARTS))
        return seconds_per_part * len(self.stale_parts) * share


def plan_steps(project: Project) -> list[PlannedStep]:
    """Each step of the chain, in order."""
    planned: list[PlannedStep] = []
    for level in levels(project):
        waits = any(p.stale_parts != [] for p in planned)
        for branch in level.branches:
            blocked = waits
            for step in branch:
                planned.append(PlannedStep(step, None if blocked else step.stale_parts()))
                blocked = blocked or planned[-1].stale_parts != []
    return planned


def plan_train(project: Project) -> Plan | None:
    """What training on the training folder as it is now would do; None where there is none."""
    dataset = project.workspace / "dataset"
    return plan_training(dataset, project.train, newest_speed(project.workspace)) if dataset.is_dir() else None


def source_rows(project: Project) -> Rows:
    """What each source has to give."""
    rows = []
    for name, source in project.sources.items():
        offered = kind_of(source).measure(source)
        limit = getattr(source, "limit", None)
        rows.append(
            {
                "source": name,
                "kind": source.kind,
                "role": str(source.role),
                "there": f"{offered.count:,} {offered.unit}, {size(offered.bytes)}",
                "taken": "all" if limit is None else f"at most {limit:,}",
            }
        )
    return rows


def step_rows(steps: Sequence[PlannedStep]) -> Rows:
    """What would become of each step."""
    rows = []
    for planned in steps:
        there, seconds = planned.step.existing(), planned.seconds
        rows.append(
            {
                "step": planned.step.title,
                "would be made": _would_be_made(planned, there.parts_done),
                "images there": there.kept or None,
                "size": size(there.bytes_written) if there.bytes_written else "",
                "time": f"about {duration(seconds)}" if seconds else "",
            }
        )
    return rows


def training_rows(plan: Plan) -> Rows:
    """What training would show, by folder; the last row says how long the whole run is."""
    rows: Rows = [
        {
            "folder": folder.name,
            "images": folder.images,
            "multiply": float(folder.multiply),
            "shown an epoch": float(folder.images_per_epoch),
        }
        for folder in plan.folders
    ]
    return rows


def bucket_rows(plan: Plan) -> Rows:
    """What the first epoch takes from each bucket."""
    return [
        {
            "bucket": f"{bucket.size[0]} × {bucket.size[1]}",
            "images": bucket.images,
            "batches": bucket.batches,
            "repeats to fill": bucket.filled,
        }
        for bucket in plan.buckets
    ]


def print_training(plan: Plan) -> None:
    """Prints what training would show, in which buckets, and what the user should know."""
    print_table(rows_table("What an epoch would show, as the images are now", training_rows(plan)))
    print_table(rows_table("In which buckets", bucket_rows(plan)))
    print("\n".join([training_line(plan), *plan.notes]))


def training_line(plan: Plan) -> str:
    """How long the whole run is."""
    text = f"train: {plan.epochs} epochs, {plan.steps:,} steps, {plan.total_images:,} images shown"
    text += f", about {duration(plan.seconds)}" if plan.seconds else ""
    return text + (f"; some {plan.memory / 2**30:.1f} GiB of a GPU's memory, by estimate" if plan.memory else "")


def _would_be_made(planned: PlannedStep, parts: int) -> str:
    if planned.stale_parts is None:
        return "not known yet"
    if not planned.stale_parts:
        return "nothing"
    return f"{len(planned.stale_parts)} of {parts} parts" if parts else "all"
