"""A Prefect flow for each stage of a project, whose form is the stage's config as project.yaml has it.

The flow of a stage is an attribute of this module, so its entrypoint is
`dreamloom.flows.server.project_flows.STAGE`; for what brings a source in, it is `filter_KIND` or `ingest_KIND`.
`dreamloom up` makes deployments of them for a project (dreamloom.flows.server.deployments).
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.runtime import deployment, flow_run

from dreamloom.base.stage import StageConfig
from dreamloom.caption.config import CaptionConfig
from dreamloom.curate.config import BalanceConfig, ChooseConfig, ScoreConfig
from dreamloom.flows.chain.selection import Selection, StageName
from dreamloom.flows.project.project import load_project
from dreamloom.flows.project.project_train import ProjectTrainConfig
from dreamloom.flows.server.prefect_flows import run_project
from dreamloom.flows.server.project_forms import with_form
from dreamloom.scrape.datasets import all_kinds
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.train.evaluate.config import EvaluateConfig
from dreamloom.train.export.config import ExportConfig

_OF_A_SOURCE: dict[str, type[StageConfig]] = {
    "scrape": ScrapeConfig,
    "score": ScoreConfig,
    "caption": CaptionConfig,
}
_OF_ALL_SOURCES: dict[str, type[StageConfig]] = {
    "choose": ChooseConfig,
    "balance": BalanceConfig,
    "train": ProjectTrainConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
}


def _named(stage: str | None = None) -> Callable[[], str]:
    """Returns what names a run: by its stage and, if it has one, its source."""
    return lambda: " ".join(filter(None, (stage or flow_run.parameters["stage"], flow_run.parameters.get("source"))))


@flow(name="stage", flow_run_name=_named())
def stage(project: Path, stage: StageName, source: str | None = None) -> Any:
    """Runs one stage of a project with the project's own config, on what earlier stages made.

    Args:
        project: its project.yaml; an absolute path where a worker runs the flow.
        stage: which stage.
        source: run a stage of one source for this one alone; null: for all.
    """
    return run_project(lambda: load_project(project), Selection([stage], sources=[source] if source else []))


@cache
def stage_flow(entrypoint: str) -> Flow[..., Any]:
    """Creates the flow of a stage: scrape, train; or of what brings in a kind of source: ingest_coco.

    Raises:
        KeyError: there is no such stage.
    """
    kinds = {f"{kind.stage}_{kind.name}": kind for kind in all_kinds()}
    name: Any = kinds[entrypoint].stage if entrypoint in kinds else entrypoint
    configs: dict[str, type[StageConfig]] = {key: kind.config for key, kind in kinds.items()}
    configs |= _OF_A_SOURCE | _OF_ALL_SOURCES

    def of_source(project: Path, config: Any, source: str | None = None) -> Any:
        selection = Selection([name], sources=[source] if source else [])
        return run_project(lambda: with_form(load_project(project), name, source, config, _opened_with()), selection)

    def of_all(project: Path, config: Any) -> Any:
        selection = Selection([name])
        return run_project(lambda: with_form(load_project(project), name, None, config, _opened_with()), selection)

    run = of_all if entrypoint in _OF_ALL_SOURCES else of_source
    run.__annotations__["config"] = configs[entrypoint]
    description = (
        f"Runs {name} of a project. What the form leaves as it is, is as project.yaml says when the run begins."
    )
    return flow(name=entrypoint.replace("_", "-"), flow_run_name=_named(name), description=description)(run)


def _opened_with() -> Mapping[str, Any]:
    """Returns the config that the form of this run's deployment showed; empty without a deployment."""
    if deployment.id is None:
        return {}
    with get_client(sync_client=True) as client:
        shown: dict[str, Any] = client.read_deployment(deployment.id).parameters.get("config", {})
    return shown


def __getattr__(name: str) -> Any:
    try:
        return stage_flow(name)
    except KeyError:
        raise AttributeError(f"no stage and no kind of source is called {name}") from None
