"""The deployments of a project on a Prefect server: the chain, each of its stages, and any stage by name.

Their names tell project and stage: `end-to-end/zorp`, `train/zorp`, `filter-laion/zorp-web`. They are made for one
project.yaml, by its absolute path, and run in the pool POOL: what may need the GPU in the queue GPU, one at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from dreamloom.base.errors import UserError
from dreamloom.flows.chain.chain import levels
from dreamloom.flows.project.project import Project
from dreamloom.flows.project.schedule import ScheduleConfig, timezone_of
from dreamloom.flows.server import project_flows
from dreamloom.flows.server.automations import HEARTBEAT_SECONDS, TAG
from dreamloom.flows.server.prefect_flows import end_to_end
from dreamloom.flows.server.project_forms import form_config, label_fields

POOL, CPU, GPU = "dreamloom", "default", "gpu"
"""The work pool, its queue for work of the CPU, and that for work of the GPU, of which one runs at a time."""
JOB_ENVIRONMENT = {
    "PREFECT_LOGGING_EXTRA_LOGGERS": "dreamloom",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Environment of the processes of runs."""
_NEEDS_GPU = ("score", "caption", "train", "evaluate")


@dataclass(frozen=True)
class ProjectDeployment:
    """A deployment of a project."""

    file: Path
    """The project's file."""
    name: str
    entrypoint: str
    flow: Flow[..., Any]
    queue: str
    parameters: dict[str, Any]
    choices: dict[str, list[str]] = field(default_factory=dict)
    """Parameter → the values that its form offers."""
    schedule: ScheduleConfig | None = None

    @property
    def full_name(self) -> str:
        """What `prefect deployment run` takes."""
        return f"{self.flow.name}/{self.name}"


def project_deployments(project: Project, file: Path, schedule: ScheduleConfig | None) -> list[ProjectDeployment]:
    """Returns the deployments of a project, the chain first.

    Args:
        project: the project.
        file: its project.yaml, an absolute path.
        schedule: when the chain runs; None: by hand only.
    """
    module = project_flows.__name__
    stages = list(
        dict.fromkeys(step.stage for level in levels(project) for branch in level.branches for step in branch)
    )
    return [
        ProjectDeployment(
            file,
            project.name,
            f"{end_to_end.__module__}.end_to_end",
            end_to_end,
            GPU,
            {"project": str(file)},
            {"only": stages, "until": stages, "sources": list(project.sources)},
            schedule,
        ),
        ProjectDeployment(
            file,
            project.name,
            f"{module}.stage",
            project_flows.stage,
            GPU,
            {"project": str(file)},
            {"stage": stages, "source": list(project.sources)},
        ),
        *_stage_deployments(project, file),
    ]


def form_schema(wanted: ProjectDeployment) -> dict[str, Any]:
    """Returns the form of a deployment as JSON schema: the flow's parameters, with the project's own choices."""
    schema: dict[str, Any] = parameter_schema(wanted.flow.fn).model_dump()
    for name, values in wanted.choices.items():
        _offer(schema["properties"][name], values)
    if "config" in schema["properties"]:
        config = wanted.flow.fn.__annotations__["config"]
        label_fields(schema["definitions"], config)
        _name_sources(schema["definitions"][config.__name__]["properties"], wanted.choices.get("source", []))
    return schema


def _name_sources(fields: dict[str, Any], sources: Sequence[str]) -> None:
    """Gives the field that maps sources to texts a list for each of them, which else would be typed as JSON."""
    if "templates" in fields and sources:
        of_source = fields["templates"].pop("additionalProperties")
        fields["templates"]["properties"] = {source: {"title": source, **of_source} for source in sources}


def _offer(field: dict[str, Any], values: Sequence[str]) -> None:
    """Makes a field of a form, or the items of a list, a choice of these values."""
    choice = next((each for each in field.get("anyOf", ()) if each.get("type") == "string"), field)
    choice.get("items", choice)["enum"] = list(values)


def deploy(deployments: list[ProjectDeployment]) -> list[UUID]:
    """Makes the work pool, its queues and the deployments on the server of Prefect's settings, or renews them.

    Returns:
        Their ids on the server, in order.

    Raises:
        UserError: the server has deployments of these names for another project.yaml.
        httpx.HTTPError: the server does not answer, or refuses.
    """
    with get_client(sync_client=True) as client:
        _ensure_pool(client)
        for each in deployments:
            _refuse_another_project(client, each)
        return [_deploy(client, each) for each in deployments]


def prefect_yaml(deployments: Sequence[ProjectDeployment]) -> str:
    """Returns the text of a prefect.yaml, with which `prefect deploy --all` makes the same deployments."""
    declared = [
        {
            "name": each.name,
            "entrypoint": each.entrypoint,
            "description": each.flow.description,
            "tags": [TAG],
            "parameters": each.parameters,
            "schedules": [{"slug": "project", **_cron(each.schedule)}] if each.schedule else [],
            "work_pool": {"name": POOL, "work_queue_name": each.queue, "job_variables": {"env": JOB_ENVIRONMENT}},
            "pull": _pull(each),
        }
        for each in deployments
    ]
    text: str = yaml.dump(
        {"name": "dreamloom", "deployments": declared}, Dumper=_NoAliases, sort_keys=False, allow_unicode=True
    )
    return text


class _NoAliases(yaml.SafeDumper):
    """Writes equal values each in its place: people edit the file."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _cron(schedule: ScheduleConfig) -> dict[str, str]:
    return {"cron": schedule.cron, "timezone": timezone_of(schedule)}


def _pull(wanted: ProjectDeployment) -> list[dict[str, Any]]:
    """Where a run works: beside the project's file, which has to be there in any case."""
    return [{"prefect.deployments.steps.set_working_directory": {"directory": str(wanted.file.parent)}}]


def _stage_deployments(project: Project, file: Path) -> Iterator[ProjectDeployment]:
    """A deployment for each stage: of what brings sources in, for each source; of others, one."""
    seen = set()
    for level in levels(project):
        for step in (step for branch in level.branches for step in branch):
            brings_in = step.stage in ("filter", "ingest")
            attribute = f"{step.stage}_{project.sources[step.source].kind}" if brings_in else step.stage
            name = f"{project.name}-{step.source}" if brings_in else project.name
            if (attribute, name) in seen:
                continue
            seen.add((attribute, name))
            stage: Any = step.stage
            parameters: dict[str, Any] = {
                "project": str(file),
                "config": form_config(project, stage, step.source if brings_in else None),
            }
            choices = {}
            if step.source:
                parameters["source"] = step.source if brings_in else None
                choices["source"] = [step.source] if brings_in else list(project.sources)
            yield ProjectDeployment(
                file,
                name,
                f"{project_flows.__name__}.{attribute}",
                project_flows.stage_flow(attribute),
                GPU if step.stage in _NEEDS_GPU else CPU,
                parameters,
                choices,
            )


def _ensure_pool(client: SyncPrefectClient) -> None:
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    with suppress(ObjectAlreadyExists):  # it stays as it is: its limit is the user's to change
        client.create_work_queue(GPU, work_pool_name=POOL, concurrency_limit=1, priority=1)


def _refuse_another_project(client: SyncPrefectClient, wanted: ProjectDeployment) -> None:
    try:
        there = client.read_deployment_by_name(wanted.full_name).parameters.get("project")
    except ObjectNotFound:
        return
    if there not in (None, wanted.parameters["project"]):
        raise UserError(
            f"The Prefect server has {wanted.full_name} of another project ({there}); give one of them another name."
        )


def _deploy(client: SyncPrefectClient, wanted: ProjectDeployment) -> UUID:
    schedules = []
    if wanted.schedule is not None:
        cron = CronSchedule(**_cron(wanted.schedule))
        schedules.append(DeploymentScheduleCreate(schedule=cron, slug="project"))
    return client.create_deployment(
        client.create_flow(wanted.flow),
        wanted.name,
        schedules=schedules,
        parameters=wanted.parameters,
        description=wanted.flow.description,
        work_pool_name=POOL,
        work_queue_name=wanted.queue,
        tags=[TAG],
        entrypoint=wanted.entrypoint,
        parameter_openapi_schema=form_schema(wanted),
        enforce_parameter_schema=True,
        pull_steps=_pull(wanted),
        job_variables={"env": JOB_ENVIRONMENT},
    )
