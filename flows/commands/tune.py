"""The command `tune`, for a project or for a training folder."""

from pathlib import Path
from typing import Annotated

from dreamloom.base.cpu import keep_freed_memory
from dreamloom.base.errors import UserError
from dreamloom.base.stage import PathKind
from dreamloom.curate.source import Role
from dreamloom.flows import api
from dreamloom.flows.commands.step_command import FLAGS
from dreamloom.flows.project.project import Project, load_project
from dreamloom.flows.project.run_folders import heldout_folder, newest_speed
from dreamloom.flows.project.workspace import PROJECT, relative_to_cwd
from dreamloom.flows.terminal.logs import log_to_file
from dreamloom.flows.terminal.terminal import Terminal, duration, print_table, rows_table
from dreamloom.train.config import TrainConfig
from dreamloom.train.tune.config import TuneConfig
from dreamloom.train.tune.probes import Probe, plan_probes
from dreamloom.train.tune.tune import run_probes


def tune(
    target: Annotated[Path, PathKind.ADDRESS] = PROJECT,
    *,
    output: Path | None = None,
    heldout: Annotated[Path | None, PathKind.ADDRESS] = None,
    tuning: Annotated[TuneConfig, FLAGS] = TuneConfig(),
    config: Annotated[TrainConfig, FLAGS] = TrainConfig(),
) -> None:
    """Probe ratios of ground truth with short runs, and recommend the least that holds the limits.

    Parameters
    ----------
    target
        The project's file or folder, or a training folder, of which --ground-truth names the folders to balance.
    output
        Folder for the probes, tune.json and tune.png: by default tune/ of the workspace or of the current folder. A
        tuning that was stopped or killed goes on in it.
    heldout
        Folder of images for evaluation, of a training folder.
    """
    keep_freed_memory()
    if target.is_file() or (target / "project.yaml").is_file():
        if config != TrainConfig() or heldout is not None:
            raise UserError("tune takes a project's training from its train section; write the settings there.")
        project = load_project(target)
        api.run(project, until="balance")
        folder, heldout, workspace = project.workspace / "dataset", heldout_folder(project.workspace), project.workspace
        config, output = _project_config(project), output or workspace / "tune"
        speed = newest_speed(workspace)
    else:
        folder, output, speed = target, output or Path("tune"), None
    with log_to_file(output / "logs"), Terminal() as terminal, terminal.watch("tune") as progress:
        probes = plan_probes(folder, output, config, tuning, heldout, progress)
        print(_told_before(probes, speed))
        found = run_probes(probes, folder, output, heldout, progress)
    if found.results:
        print_table(rows_table("Probes", found.rows()))
    if not found.finished:
        print("tune: stopped and saved; run again to go on")
        return
    print(f"tune: {found.recommendation}\n  {relative_to_cwd(output / 'tune.png')} shows it")
    if found.line():
        print(f"for project.yaml:\n{found.line()}")


def _project_config(project: Project) -> TrainConfig:
    """Returns a project's config, with the names of its sources of ground truth, and the latents of its runs."""
    config = project.train_config()
    names = config.ground_truth or project.sources_of(Role.GROUND_TRUTH)
    latents = config.latent_cache or project.workspace / "runs" / ".latents"
    return config.model_copy(update={"ground_truth": names, "latent_cache": latents})


def _told_before(probes: list[Probe], speed: float | None) -> str:
    """Tells how much there is to do, and how long it takes as far as that is known.

    Args:
        probes: of the tuning.
        speed: images a second of a run on the same data; None: that of the probes that are done, if any.
    """
    left = [probe for probe in probes if probe.summary is None]
    speeds = [s.images_per_second for probe in probes if (s := probe.summary) and s.images_per_second]
    speed = speeds[-1] if speeds else speed
    images = sum(probe.images for probe in left)
    text = f"tune: {len(left)} of {len(probes)} probes to run, {images:,} images to show"
    if not left:
        return text
    took = f", about {duration(images / speed)} and the evaluations" if speed else "; the time left is shown as it goes"
    return text + took
