"""`dreamloom up` and `down`: a project's server, worker, deployments and schedule, in one go."""

import os
import shlex
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_text
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.flows.project.config_errors import error_lines
from dreamloom.flows.project.project import Project, load_project
from dreamloom.flows.project.schedule import ScheduleConfig, next_run, timezone_of
from dreamloom.flows.project.workspace import PROJECT, workspace_of
from dreamloom.flows.server.services import HOST, Service, Services, answers, free_port, load_services

_ORDER: tuple[Service, ...] = ("worker", "server")
"""In which processes are stopped."""


def up(
    project: Path = PROJECT,
    *,
    schedule: str | None = None,
    timezone: str | None = None,
    notify: str | None = None,
    database: str | None = None,
    port: int | None = None,
    systemd: Path | None = None,
    prefect_yaml: Path | None = None,
) -> None:
    """Start a Prefect server and a worker for a project, with its deployments and schedule; run again after changes.

    Where PREFECT_API_URL is set, that server is used, and none is started.

    Parameters
    ----------
    project
        The project's file, or its folder.
    schedule
        When the chain runs, as cron has it: "0 3 * * 1" is Monday at 3; by default as project.yaml says.
    timezone
        Time zone of the schedule, such as Europe/Paris; by default this machine's.
    notify
        Web hook to which the server posts {"text": …} when a run fails, as chat programs take it; by default as
        project.yaml says.
    database
        PostgreSQL database of the server, such as postgresql://user:password@host/prefect; by default SQLite in the
        workspace.
    port
        Port of the server; by default 4200, or a free one.
    systemd
        Write user units for systemd into this folder, and leave it to them to run server and worker.
    prefect_yaml
        Write the deployments into this file, for `prefect deploy --all`, and start nothing.
    """
    loaded, file = load_project(project), project_file(project)
    cron = _schedule(loaded, schedule, timezone)
    if notify is not None and not notify.startswith(("http://", "https://")):
        raise UserError(
            f"--notify: {notify!r} is no address of a web hook; write one such as https://chat.example/hook."
        )
    if prefect_yaml is not None:
        _write_prefect_yaml(prefect_yaml, loaded, file, cron)
        return
    services = load_services(loaded.workspace)
    with lock(services.home):
        _ensure_server(services, database, port)
        os.environ |= services.environment()  # before Prefect is imported, which reads it
        deployed = _deploy(loaded, file, cron, notify or loaded.notify)
        if systemd is not None:
            _hand_over(services, loaded, systemd)
        elif not services.is_running("worker"):
            services.start("worker")
    print(f"dashboard {services.dashboard}\nlogs      {services.home}")
    print(f"schedule  {_tell(cron) if cron else 'none'}")
    print("\n".join(f"deployed  {name}" for name in deployed))
    print(f"run now   PREFECT_API_URL={services.api} prefect deployment run {shlex.quote(deployed[0])} --watch")


def _tell(schedule: ScheduleConfig) -> str:
    return f"{schedule.cron} {timezone_of(schedule)}, next {next_run(schedule):%a %d %b %H:%M}"


def down(project: Path = PROJECT) -> None:
    """Stop what `dreamloom up` started. A run that is under way saves what it has; the next one goes on.

    Parameters
    ----------
    project
        The project's file, or its folder.
    """
    services = load_services(workspace_of(project))
    if not services.record.exists():
        print("Nothing is up.")
        return
    with lock(services.home):
        for name in _ORDER:
            print(f"{name:<10}{'stopped' if services.stop(name) else 'was not running'}", flush=True)
        services.save()


def project_file(project: Path) -> Path:
    """Returns the absolute path of the file of a project that is named by its file or its folder."""
    return (project / "project.yaml" if project.is_dir() else project).absolute()


def _schedule(project: Project, cron: str | None, timezone: str | None) -> ScheduleConfig | None:
    if cron is None and timezone is None:
        return project.schedule
    given: dict[str, Any] = project.schedule.model_dump() if project.schedule else {}
    given |= {name: value for name, value in (("cron", cron), ("timezone", timezone)) if value is not None}
    try:
        return ScheduleConfig.model_validate(given)
    except ValidationError as error:
        raise UserError("\n".join(error_lines(error, ScheduleConfig, lambda key: f"--{key[-1]}"))) from None


def _write_prefect_yaml(target: Path, project: Project, file: Path, schedule: ScheduleConfig | None) -> None:
    from dreamloom.flows.server import deployments

    if target.exists():
        raise UserError(f"{target} is there already; name another file.")
    text = deployments.prefect_yaml(deployments.project_deployments(project, file, schedule))
    commit_text(target, text)
    print(f"{target} is written; prefect deploy --all --prefect-file {target} makes what it says.")


def _ensure_server(services: Services, database: str | None, port: int | None) -> None:
    """Finds the server that is to be used, or starts it."""
    if database is not None:
        services.database = database.replace("postgresql://", "postgresql+asyncpg://", 1)
    given = os.environ.get("PREFECT_API_URL")
    if given is not None and given != services.api:
        if not answers(given):
            raise UserError(f"No Prefect server answers at PREFECT_API_URL ({given}); start it, or unset the variable.")
        services.api = given
        services.save()
        return
    if services.api and answers(services.api):
        return
    if not services.is_running("server"):  # else it is busy, and answers later
        if port is not None or not services.api:
            services.api = f"http://{HOST}:{port or free_port()}/api"
        services.start("server")
    services.await_server()


def _deploy(project: Project, file: Path, schedule: ScheduleConfig | None, notify: str | None) -> list[str]:
    from dreamloom.flows.server.automations import ensure_automations
    from dreamloom.flows.server.deployments import deploy, project_deployments
    from dreamloom.flows.server.notices import ensure_notices

    deployments = project_deployments(project, file, schedule)
    ids = deploy(deployments)
    ensure_automations()
    ensure_notices(project.name, ids, notify)
    return [each.full_name for each in deployments]


# systemd


def _hand_over(services: Services, project: Project, folder: Path) -> None:
    """Stops the processes, and writes the units that run them from now on."""
    runs_server = services.is_running("server")
    units = []
    for name in _ORDER:
        services.stop(name)
        if name == "worker" or runs_server:
            unit = folder / f"dreamloom-{_unit_name(project)}-{name}.service"
            commit_text(unit, _unit(services, project, name, runs_server))
            units.append(str(unit.absolute()))
    services.save()
    print(f"Start them now and at each boot:\n  systemctl --user enable --now {' '.join(reversed(units))}")
    print("  loginctl enable-linger   # also while you are not logged in")


def _unit(services: Services, project: Project, name: Service, has_server: bool) -> str:
    after = f"dreamloom-{_unit_name(project)}-server.service" if name == "worker" and has_server else ""
    lines = [f"Environment={_quoted(f'{key}={value}')}" for key, value in sorted(_unit_environment(services).items())]
    return "\n".join(
        [
            "[Unit]",
            f"Description=dreamloom {name} of {_literal(project.name)}",
            *([f"Wants={after}", f"After={after}"] if after else []),
            "",
            "[Service]",
            f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in services.command(name))}",
            *lines,
            f"WorkingDirectory={_literal(str(services.home))}",
            "Restart=on-failure",
            "RestartSec=10",
            "TimeoutStopSec=120",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        ]
    )


def _unit_environment(services: Services) -> dict[str, str]:
    from dreamloom.flows import PREFECT_DEFAULTS

    return {name: os.environ[name] for name in PREFECT_DEFAULTS} | services.environment()


def _unit_name(project: Project) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in project.name)


def _quoted(text: str) -> str:
    """A word as systemd reads it."""
    escaped = _literal(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _literal(text: str) -> str:
    """A text of which systemd takes no part for one of its specifiers, such as %h."""
    return text.replace("%", "%%")
