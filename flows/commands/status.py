"""`dreamloom status`: what of a project is done, stale, running or pending, and when it runs next. Imports no torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dreamloom.base.sharing.folder_lock import is_locked
from dreamloom.base.text import printable
from dreamloom.flows.plan.planned_steps import PlannedStep, plan_steps
from dreamloom.flows.project.project import Project, load_project
from dreamloom.flows.project.workspace import PROJECT, report_path
from dreamloom.flows.server.services import load_services
from dreamloom.flows.terminal.json_output import AsJson, print_json
from dreamloom.flows.terminal.terminal import print_table, rows_table

State = Literal["done", "stale", "running", "pending"]
_SERVER_SECONDS = 1.5
"""How long the server is waited for: the rest is known without it."""


@dataclass(frozen=True)
class StepStatus:
    """How far a step is."""

    stage: str
    source: str
    state: State
    """done: nothing to make; stale: made by another config, or of what has changed; pending: not made yet."""
    parts_done: int
    parts_to_make: int | None
    """None: not known before earlier steps are done."""
    images: int


def status(project: Path = PROJECT, *, as_json: AsJson = False) -> None:
    """Show what of a project is done, stale, running or pending, when it runs next, and where to look.

    Parameters
    ----------
    project
        The project's file, or its folder.
    as_json
        Print it as JSON.
    """
    loaded = load_project(project)
    content = {"project": loaded.name, "steps": [asdict(step) for step in step_states(loaded)], **_around(loaded)}
    if as_json:
        print_json(content)
        return
    _print(content)


def step_states(project: Project) -> list[StepStatus]:
    """Returns how far each step of the chain is, in order."""
    is_running = bool(is_locked(project.workspace / ".lock"))
    return list(_states(plan_steps(project), is_running))


def _states(planned: Sequence[PlannedStep], is_running: bool) -> Iterator[StepStatus]:
    begun: set[str] = set()
    for each in planned:
        existing = each.step.existing()
        to_make = None if each.stale_parts is None else len(each.stale_parts)
        state: State = "done" if to_make == 0 else "stale" if existing.parts_done and to_make else "pending"
        if is_running and to_make and each.step.source not in begun and "" not in begun:
            state = "running"
        if to_make != 0:
            begun.add(each.step.source)
        yield StepStatus(each.step.stage, each.step.source, state, existing.parts_done, to_make, existing.kept)


def _around(project: Project) -> dict[str, Any]:
    """What else is known: of the server if it answers, and of the files."""
    services = load_services(project.workspace)
    report, model = report_path(project.workspace), project.workspace / "model"
    found: dict[str, Any] = {
        "next_run": None,
        "server": None,
        "worker": None,
        "dashboard": None,
        "report": str(report) if report.exists() else None,
        "model": str(model) if model.exists() else None,
        "runs": [],
    }
    if not services.api:
        return found | {"server": "none; dreamloom up starts one"}
    found["worker"] = "running" if services.is_running("worker") else "not running"
    try:
        found |= _of_server(services.api, project.name)
        found |= {"server": "running", "dashboard": services.dashboard}
    except (OSError, ValueError):
        if services.is_running("server"):
            found |= {"server": "busy: it runs, and did not answer in time", "dashboard": services.dashboard}
        else:
            found["server"] = f"does not answer at {services.api}; dreamloom up starts it"
    return found


def _of_server(api: str, name: str) -> dict[str, Any]:
    """The next scheduled run of the chain, and the last runs of the project."""
    deployments = _ask(api, "deployments/filter", {"deployments": {"tags": {"all_": ["dreamloom"]}}})
    ours = [each["id"] for each in deployments if each["name"] == name or each["name"].startswith(f"{name}-")]
    if not ours:
        return {}
    of_ours = {"deployments": {"id": {"any_": ours}}}
    in_future = {"after_": datetime.now(UTC).isoformat()}
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": in_future}}
    following = _ask(api, "flow_runs/filter", of_ours | scheduled | {"sort": "EXPECTED_START_TIME_ASC", "limit": 1})
    begun = {"flow_runs": {"start_time": {"is_null_": False}}}
    last = _ask(api, "flow_runs/filter", of_ours | begun | {"sort": "START_TIME_DESC", "limit": 3})
    return {
        "next_run": following[0]["expected_start_time"] if following else None,
        "runs": [
            {
                "name": run["name"],
                "state": run["state_name"],
                "message": run["state"]["message"],
                "started": run["start_time"],
                "page": f"{api.removesuffix('/api')}/runs/flow-run/{run['id']}",
            }
            for run in last
        ],
    }


def _ask(api: str, path: str, body: Mapping[str, Any]) -> list[Any]:
    from urllib.request import Request, urlopen

    request = Request(f"{api}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=_SERVER_SECONDS) as answer:
        found: list[Any] = json.load(answer)
    return found


def _print(content: Mapping[str, Any]) -> None:
    rows = [{name.replace("_", " "): value for name, value in step.items()} for step in content["steps"]]
    print_table(rows_table(content["project"], rows))
    content = {**content, "next_run": _local(content["next_run"])}
    for name in ("next_run", "server", "worker", "dashboard", "report", "model"):
        if content[name]:
            print(f"{name.replace('_', ' '):<12}{content[name]}")
    for run in content["runs"]:
        line = f"{'run':<12}{_local(run['started'])}  {run['state']:<10} {run['name']}: {run['message'] or ''}"
        print(printable(line.rstrip(": ")))


def _local(time: str | None) -> str:
    return f"{datetime.fromisoformat(time).astimezone():%a %d %b %Y %H:%M}" if time else ""
