"""The commands about training runs that exist: `runs` lists them, `compare` sets two side by side. No torch."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from dreamloom.base.errors import UserError
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.flows.project.prune import Removal, plan_removals
from dreamloom.flows.project.workspace import PROJECT, relative_to_cwd, workspace_of
from dreamloom.flows.report.comparison import comparison_tables, sample_grid, write_comparison
from dreamloom.flows.terminal.json_output import AsJson, print_json
from dreamloom.flows.terminal.terminal import print_table, rows_table, size
from dreamloom.train.evaluate.runs import RunInfo, config_changes, data_changes, find_runs


def runs(folder: Path = PROJECT, *, as_json: AsJson = False) -> None:
    """List training runs: when, what differs from the one before, what was learned and forgotten, size.

    Parameters
    ----------
    folder
        A project.yaml or its folder, a workspace, or any folder of runs.
    as_json
        Print a JSON list instead.
    """
    found = runs_in(folder)
    pairs = list(zip([None, *found], found, strict=False))
    if as_json:
        print_json([_record(before, run) for before, run in pairs])
        return
    print_table(rows_table(f"Runs in {relative_to_cwd(found[0].folder.parent)}", [_row(*pair) for pair in pairs]))


def compare(a: Path, b: Path, *, output: Path | None = None, as_json: AsJson = False) -> None:
    """Compare two training runs: config, images, what was learned and forgotten, samples side by side.

    Parameters
    ----------
    a
        A run; of a project, a workspace or a folder of runs, the newest.
    b
        The other one.
    output
        Name of the .png and the .html to write, without the ending; by default dreamloom-compare-A-B in the current
        folder.
    as_json
        Print the tables as JSON, and the names of the files.
    """
    first, second = runs_in(a)[-1], runs_in(b)[-1]
    tables = comparison_tables(first, second)
    target = output or Path(f"dreamloom-compare-{first.name}-{second.name}")
    if as_json:
        written = write_comparison(first, second, tables, sample_grid(first, second), target)
        print_json({"tables": tables, "files": list(written)})
        return
    for title, rows in tables.items():
        print_table(rows_table(title, rows)) if rows else print(f"{title}: no difference")
    for file in write_comparison(first, second, tables, sample_grid(first, second), target):
        print(f"{'samples' if file.suffix == '.png' else 'page'}: {relative_to_cwd(file)}")


def prune(
    folder: Path = PROJECT,
    *,
    keep: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what could be freed of finished runs: their optimizers' states, and old runs on which nothing hangs.

    Unfinished runs, the newest finished one, and those of the project, its model, its report or another run's base
    stay whole. A folder with files that are no part of a run stays, too.

    Parameters
    ----------
    folder
        A project.yaml or its folder, a workspace, or a folder of runs.
    keep
        Finished runs to keep, the newest; by default keep_runs of project.yaml, else all.
    yes
        Do it.
    as_json
        Print it as JSON.
    """
    from dreamloom.flows.chain.chain import plan_prune
    from dreamloom.flows.project.project import load_project

    if folder.is_file() or (folder / "project.yaml").is_file():
        project = load_project(folder)
        workspace, keep = project.workspace, keep or project.keep_runs
        removals = plan_prune(project, keep)
    else:
        workspace = folder.expanduser().absolute()
        removals = plan_removals(runs_in(folder), workspace, keep)
    if not as_json:
        rows = [_removal_row(removal) for removal in removals]
        print_table(rows_table(f"Runs in {relative_to_cwd(workspace)}", rows))
    freed = sum(removal.bytes for removal in removals)
    if yes:
        with lock(workspace):
            for removal in removals:
                removal.apply()
    if as_json:
        print_json([{"run": r.run.folder, "what": r.what, "why": r.why, "bytes": r.bytes} for r in removals])
    else:
        print(f"{size(freed)} {'are free now' if yes else 'would be free; nothing was removed: --yes does it'}.")


def _removal_row(removal: Removal) -> dict[str, str]:
    frees = size(removal.bytes) if removal.bytes else ""
    return {"run": removal.run.name, "what": removal.what, "why": removal.why, "frees": frees}


def runs_in(path: Path) -> list[RunInfo]:
    """Returns the runs of a project.yaml, of its folder, of a workspace or of a folder of runs; or a run itself.

    Raises:
        UserError: there are none.
    """
    path = path.expanduser().absolute()
    folder = workspace_of(path) if path.is_file() or (path / "project.yaml").is_file() else path
    if not folder.is_dir():
        raise UserError(f"{folder} is not there; name a project, a workspace, or a folder of runs.")
    found = find_runs(folder)
    if not found:
        raise UserError(f"{folder} holds no training run; name a project, a workspace, or a folder of runs.")
    return found


def _row(before: RunInfo | None, run: RunInfo) -> dict[str, Any]:
    measures = run.measures
    done = "" if run.summary else f"not finished; {run.images_seen:,} images seen"
    return {
        "run": run.name,
        "began": run.began.replace("T", " ")[:16],
        "differs from the one before": list(filter(None, [done, *_differences(before, run)])),
        "steps": run.steps,
        **{label: "; ".join(_short(measures[name]) for name in names if name in measures) for label, names in _SHOWN},
        "size": size(run.bytes),
    }


_SHOWN = (("learned", ("learned",)), ("forgotten", ("forgotten", "forgotten, not rehearsed")))
"""Column of the list → measures."""


def _short(measure: Any) -> str:
    error = "" if measure.error is None else f" ± {100 * measure.error:.1f}"
    return f"{100 * measure.change:.1f}{error} % (n = {measure.images})"


def _differences(before: RunInfo | None, run: RunInfo) -> list[str]:
    if before is None:
        return []
    continued = [f"goes on from {Path(run.continued).name}"] if run.continued else []
    changed = [f"{name} {_text(old)} → {_text(new)}" for name, (old, new) in config_changes(before, run).items()]
    return [*continued, *changed, *data_changes(before, run)] or ["nothing"]


def _text(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _record(before: RunInfo | None, run: RunInfo) -> dict[str, Any]:
    changes: Mapping[str, Any] = config_changes(before, run) if before else {}
    return {
        "run": str(run.folder),
        "began": run.began,
        "finished": run.summary is not None,
        "base": run.config.get("base"),
        "config_changes": {name: {"before": old, "now": new} for name, (old, new) in changes.items()},
        "data_changes": data_changes(before, run) if before else [],
        "continued": run.continued,
        "steps": run.steps,
        "images_seen": run.images_seen,
        "learned": run.best.get("learned"),
        "forgotten": run.best.get("forgotten"),
        "forgotten_unrehearsed": run.best.get("forgotten_unrehearsed"),
        "verdict": run.best.get("verdict", ""),
        "images": {name: asdict(folder) for name, folder in (run.data or {}).items()},
        "bytes": run.bytes,
    }
