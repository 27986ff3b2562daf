"""Events of a project on a Prefect server, for automations: a model is ready, a run failed, a limit is exceeded.

| event | payload, beside project and workspace |
|---|---|
| dreamloom.model.ready | model, run, report, learned, forgotten, verdict |
| dreamloom.run.failed | message |
| dreamloom.limit.exceeded | message, run, report |

Numbers are shares of the base model's loss; what is not measured is null.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run

from dreamloom.base.errors import error_line, leaves
from dreamloom.flows.chain import chain
from dreamloom.flows.chain.steps import Outcome
from dreamloom.flows.chain.train_steps import LimitExceeded
from dreamloom.flows.project.project import Project
from dreamloom.flows.project.workspace import report_path
from dreamloom.train.evaluate.results import read_evaluation

MODEL_READY, RUN_FAILED = "dreamloom.model.ready", "dreamloom.run.failed"
LIMIT_EXCEEDED = "dreamloom.limit.exceeded"


def tell_success(project: Project, outcomes: Sequence[Outcome]) -> None:
    """Emits that a model is ready, where the run published one."""
    if not (outcomes[-1].changed and outcomes[-1].message.startswith("export")):
        return
    evaluated = chain.evaluation_path(project) if project.evaluate is not None else chain.run_folder(project)
    evaluation = read_evaluation(evaluated)
    learned, forgotten = (evaluation.learned, evaluation.forgotten) if evaluation else (None, None)
    _emit(
        MODEL_READY,
        project,
        model=project.workspace / "model",
        run=chain.run_folder(project),
        report=report_path(project.workspace),
        learned=learned.change if learned else None,
        forgotten=forgotten.change if forgotten else None,
        verdict=evaluation.verdict if evaluation else "",
    )


def tell_failure(project: Project, error: BaseException) -> None:
    """Emits why a run failed; where the model forgot too much, that too."""
    errors = leaves(error)
    message = "\n".join(map(error_line, errors))
    if any(isinstance(each, LimitExceeded) for each in errors):
        report = report_path(project.workspace)
        _emit(LIMIT_EXCEEDED, project, message=message, run=chain.run_folder(project), report=report)
    _emit(RUN_FAILED, project, message=message)


def _emit(event: str, project: Project, **payload: Any) -> None:
    values = {name: str(value) if isinstance(value, Path) else value for name, value in payload.items()}
    run = {"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}
    emit_event(
        event,
        {
            "prefect.resource.id": f"dreamloom.project.{resource_name(project.name)}",
            "prefect.resource.name": project.name,
        },
        related=[run] if flow_run.id else [],
        payload={"project": project.name, "workspace": str(project.workspace), **values},
    )


def resource_name(project: str) -> str:
    """Returns a project's name as part of a resource's id: lower case, dashes for what is no letter or digit."""
    return re.sub(r"[^a-z0-9]+", "-", project.lower()).strip("-") or "project"
