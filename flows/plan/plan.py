"""Plans a run: what it would make, as rows of tables. Writes nothing and does not import torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from dreamloom.base.files.remembered import remembered
from dreamloom.base.stage import recipe
from dreamloom.base.tables.streamed_set import has_training_set
from dreamloom.curate.manifest import content_digest, manifest_path
from dreamloom.flows.chain.chain import is_trained
from dreamloom.flows.chain.reasons import why
from dreamloom.flows.chain.train_steps import SAMPLES
from dreamloom.flows.plan import plan_warnings
from dreamloom.flows.plan.forecast import Forecast, Sizes, forecast, source_row
from dreamloom.flows.plan.planned_steps import PlannedStep
from dreamloom.flows.project.project import Project
from dreamloom.flows.project.run_folders import heldout_folder, newest_speed
from dreamloom.flows.project.speeds import remembered_speed
from dreamloom.flows.terminal.terminal import duration, print_table, rows_table, size
from dreamloom.train.plan import Plan
from dreamloom.train.plan import plan as plan_training

Rows = list[dict[str, Any]]


def forecast_of(project: Project, steps: Sequence[PlannedStep], sizes: Sizes) -> Forecast | None:
    """Returns what would be trained on where the dataset is still to be made; None where it is there, or not known."""
    done = {planned.step.title: planned.stale_parts == [] for planned in steps}
    return None if done["balance"] else forecast(project, done, sizes)


@dataclass(frozen=True)
class ProjectPlan:
    """What a run of a project would train, as far as it is known, and what is to be warned of."""

    forecast: Forecast | None
    """Of a dataset that is still to be made."""
    training: Plan | None
    """Of the dataset that is there."""
    warnings: list[str]


def plan_project(project: Project, steps: Sequence[PlannedStep], sizes: Sizes) -> ProjectPlan:
    """Plans what a run of these steps would train."""
    expected = forecast_of(project, steps, sizes)
    training, warned = plan_with_warnings(project) or (None, plan_warnings.expected_warnings(project, sizes))
    measured = plan_warnings.measurement_warnings(project, sizes)
    return ProjectPlan(expected, training, [*warned, *measured, *plan_warnings.disk_warnings(project, steps)])


def content(project: Project, steps: Sequence[PlannedStep], sizes: Sizes, planned: ProjectPlan) -> dict[str, Any]:
    """Returns the plan of a project for programs: counts, bytes and seconds; null is not known."""
    return {
        "project": project.name,
        "workspace": project.workspace,
        "sources": [
            {"source": name, "kind": source.kind, "role": str(source.role), **asdict(sizes[name])}
            | {"limit": getattr(source, "limit", None)}
            for name, source in project.sources.items()
        ],
        "steps": [_step_content(each) for each in steps],
        "forecast": planned.forecast,
        "training": None if planned.forecast or not planned.training else training_content(planned.training),
    }


def _step_content(planned: PlannedStep) -> dict[str, Any]:
    existing, stale = planned.step.existing(), planned.stale_parts
    return {
        "stage": planned.step.stage,
        "source": planned.step.source,
        "parts_to_make": None if stale is None else len(stale),
        "parts_done": existing.parts_done,
        "why": why(planned.step, stale) if stale else "",
        "images": existing.kept,
        "bytes": existing.bytes_written,
        "bytes_to_write": planned.bytes,
        "seconds": planned.seconds,
    }


def training_content(plan: Plan) -> dict[str, Any]:
    """Returns the plan of a training for programs, without its captions."""
    dumped: dict[str, Any] = _PLAN.dump_python(replace(plan, captions=()), mode="json")
    del dumped["captions"]
    return dumped | {"notes": plan.notes}


def print_plan(planned: ProjectPlan, project: Project) -> None:
    """Prints what a run would train, as far as it is known."""
    if planned.forecast is not None:
        print_forecast(planned.forecast, project)
    elif planned.training is not None:
        print_training(planned.training)


def print_forecast(found: Forecast, project: Project) -> None:
    """Prints what a dataset that is not made yet would hold, and how long training would take."""
    print_table(rows_table("Images, as far as it is known now", list(map(source_row, found.sources))))
    print(forecast_line(found, speed_of(project)))


def forecast_line(found: Forecast, images_per_second: float | None) -> str:
    """Returns a line about a run whose dataset is not made yet."""
    text = f"train: about {float(found.images_per_epoch):,.0f} images an epoch, {found.steps:,} steps, "
    text += f"{found.total_images:,} images shown"
    if images_per_second:
        text += (
            f", about {duration(found.total_images / images_per_second)} at {images_per_second:,.1f} images a second"
        )
    else:
        text += "; the time is not known, --probe measures it"
    if found.memory is None:
        return text
    text += f"; {found.memory.describe()}"
    return f"{text}, and {size(found.disk)} of disk for checkpoints"


def plan_train(project: Project) -> Plan | None:
    """Returns what training would do with the training folder as it is now; None where there is no folder yet.

    That of a finished run is remembered, without its captions.
    """
    planned = plan_with_warnings(project)
    return None if planned is None else planned[0]


def plan_with_warnings(project: Project) -> tuple[Plan, list[str]] | None:
    """Returns what `plan_train` and `rehearsal_warnings` do; None where there is no training folder yet."""
    workspace, config = project.workspace, project.train_config()
    dataset, speed = workspace / "dataset", speed_of(project)
    if not has_training_set(dataset):
        return None
    if not is_trained(project):
        planned = plan_training(dataset, config, speed, heldout_folder(workspace))
        return planned, plan_warnings.rehearsal_warnings(project, planned)

    def compute() -> dict[str, Any]:
        plan = plan_training(dataset, config, None, heldout_folder(workspace))
        found = plan_warnings.rehearsal_warnings(project, plan)
        return {"plan": _PLAN.dump_python(replace(plan, captions=()), mode="json"), "warnings": found}

    roles = {name: str(source.role) for name, source in project.sources.items()}
    values = {"train": config.model_dump(mode="json"), "roles": roles}
    known = remembered(recipe("plan", 2, values, [content_digest(manifest_path(workspace))]), compute)
    plan = _PLAN.validate_python(known["plan"])
    return replace(plan, seconds=plan.total_images / speed if speed else None), known["warnings"]


_PLAN = TypeAdapter(Plan)


def speed_of(project: Project) -> float | None:
    """Returns this machine's images a second: of runs with the same settings, else of the workspace's newest run."""
    return remembered_speed(project.train_config()) or newest_speed(project.workspace)


def source_rows(project: Project, sizes: Sizes) -> Rows:
    """Returns a row for each source: its kind, its role, and how much it has."""
    rows = []
    for name, source in project.sources.items():
        limit = getattr(source, "limit", None)
        rows.append(
            {
                "source": name,
                "kind": source.kind,
                "role": str(source.role),
                "available": f"{sizes[name].count:,} {sizes[name].unit}, {size(sizes[name].bytes)}",
                "used": "all" if limit is None else f"at most {limit:,}",
            }
        )
    return rows


def step_rows(steps: Sequence[PlannedStep]) -> Rows:
    """Returns a row for each step: what it would make, why it makes again what exists, and what exists."""
    rows = []
    for planned in steps:
        existing, seconds = planned.step.existing(), planned.seconds
        rows.append(
            {
                "step": planned.step.title,
                "to make": _to_make(planned, existing.parts_done),
                "why": why(planned.step, planned.stale_parts) if planned.stale_parts else "",
                "existing images": existing.kept or None,
                "size": size(existing.bytes_written) if existing.bytes_written else "",
                "to write": f"about {size(planned.bytes)}" if planned.bytes else "",
                "time": f"about {duration(seconds)}" if seconds else "",
            }
        )
    return rows


def training_rows(plan: Plan) -> Rows:
    """Returns a row for each training folder: its images, and how many of them an epoch shows."""
    rows: Rows = [
        {
            "folder": folder.name,
            "images": folder.images,
            "multiply": float(folder.multiply),
            "shown per epoch": float(folder.images_per_epoch),
            "asked": f"{folder.share_asked:.1%}",
            "shown in the run": f"{folder.shown:,} ({folder.share_shown:.1%})",
        }
        for folder in plan.folders
    ]
    return rows


def bucket_rows(plan: Plan) -> Rows:
    """Returns a row for each bucket: its images and batches in the first epoch."""
    return [
        {
            "bucket": f"{bucket.size[0]} × {bucket.size[1]}",
            "images": bucket.images,
            "batches": bucket.batches,
            "in mixed batches": bucket.mixed,
        }
        for bucket in plan.buckets
    ]


def print_training(plan: Plan) -> None:
    """Prints what an epoch shows, its buckets, the length of the run, and notes."""
    print_table(rows_table("Training images, as they are now", training_rows(plan)))
    print_table(rows_table("Buckets of the first epoch", bucket_rows(plan)))
    print("\n".join([training_line(plan), *plan.notes]))


def training_line(plan: Plan) -> str:
    """Returns a line about the length of the whole run."""
    text = f"train: {plan.epochs} epochs, {plan.steps:,} steps, {plan.total_images:,} images shown"
    text += f", about {duration(plan.seconds)}" if plan.seconds else ""
    return text + (f"; {plan.memory_use}" if plan.memory_use else "")


def _to_make(planned: PlannedStep, parts: int) -> str:
    if planned.stale_parts is None:
        return "not known yet"
    if not planned.stale_parts:
        return "nothing"
    if planned.stale_parts == [SAMPLES]:
        return "samples of new prompts"
    return f"{len(planned.stale_parts)} of {parts} parts" if parts else "all"
