"""Which runs can go: what nothing hangs on any more, and what finished runs keep only to go on. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dreamloom.flows.project.workspace import report_path
from dreamloom.train.evaluate.runs import RunInfo
from dreamloom.train.export.export import read_mark
from dreamloom.train.run.removal import drop_optimizer, foreign_files, optimizer_bytes, remove_run


@dataclass(frozen=True)
class Removal:
    """What would become of a run."""

    run: RunInfo
    what: str
    """remove, drop optimizer, or keep."""
    why: str
    bytes: int
    """What that frees."""

    def apply(self) -> None:
        """Does it."""
        if self.what == "remove":
            remove_run(self.run.folder)
        elif self.what == "drop optimizer":
            drop_optimizer(self.run.folder)


def plan_removals(
    runs: Sequence[RunInfo], workspace: Path, keep: int | None, current: Path | None = None
) -> list[Removal]:
    """Decides about each run.

    What is not finished, what the project's model or report shows, and what is the base of another run stays whole,
    and so does the newest finished run. Of the others the newest ones stay, without the optimizer's state.

    Args:
        runs: the runs, the oldest first.
        workspace: where model/ and report/ may lie.
        keep: how many finished runs stay, whatever else; None: all.
        current: the run of the project as it is; None: not known, or not trained yet.
    """
    finished = [run for run in runs if run.summary is not None]
    newest = finished[-keep:] if keep else [] if keep == 0 else finished
    removals = []
    for run in runs:
        if why := _needed(run, runs, workspace, current):
            removals.append(Removal(run, "keep", why, 0))
        elif run is finished[-1]:
            removals.append(Removal(run, "keep", "the newest finished run, from which `continue` can go on", 0))
        elif run not in newest:
            foreign = foreign_files(run.folder)
            why = f"holds {foreign[0].name}, which is no part of a run" if foreign else f"older than the newest {keep}"
            removals.append(Removal(run, "keep" if foreign else "remove", why, 0 if foreign else run.bytes))
        elif size := optimizer_bytes(run.folder):
            removals.append(Removal(run, "drop optimizer", "finished; only `continue` would need it", size))
        else:
            removals.append(Removal(run, "keep", "its weights, samples and figures", 0))
    return removals


def _needed(run: RunInfo, runs: Sequence[RunInfo], workspace: Path, current: Path | None) -> str:
    """Returns what hangs on a run; empty if nothing does."""
    if run.summary is None:
        return "not finished"
    if run.folder == current:
        return "the run of project.yaml as it is"
    checkpoint = read_mark(workspace / "model").get("checkpoint")
    if _lies_in(checkpoint, run.folder) or f"/runs/{run.name}/" in str(checkpoint):  # also of a moved workspace
        return "the model was exported from it"
    page = report_path(workspace)
    if page.is_file() and f"runs/{quote(run.name)}/" in page.read_text(encoding="utf-8", errors="replace"):
        return "the report shows it"
    for other in runs:
        used = [other.config.get(name) for name in ("base", "vae", "init_lora")]
        if other is not run and any(_lies_in(model, run.folder) for model in used):
            return f"{other.name} was trained from it"
    return ""


def _lies_in(path: str | None, folder: Path) -> bool:
    return bool(path) and Path(str(path)).expanduser().resolve().is_relative_to(folder.resolve())
