"""The training loop: a training folder and a base model become a run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dreamloom.base import processes
from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import refuse_file, remove_leftovers
from dreamloom.base.files.disk import explain_full_disk
from dreamloom.base.files.remote import address_of
from dreamloom.base.progress import Progress, silent
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.datasets import read_datasets
from dreamloom.train.evaluate.prompts import check_prompts
from dreamloom.train.evaluate.redraw import draw_new_prompts, new_prompts
from dreamloom.train.families.check import check_models
from dreamloom.train.families.suit import resolve_models
from dreamloom.train.loop.distributed import DistributedGroup, check_batch_size, join_group
from dreamloom.train.loop.interrupt import Interrupted, StopRequest, catch_signals
from dreamloom.train.run.contents import describe_folders, to_json, write_images
from dreamloom.train.run.folder import (
    TrainSummary,
    check_run_folder,
    discard_unbegun,
    read_settings,
    read_summary,
    run_recipe,
    warm_recipe,
    write_settings,
    write_summary,
)

if TYPE_CHECKING:
    from dreamloom.train.data.dataset import Dataset
    from dreamloom.train.loop.session import Session


def train(
    folder: Path | str,
    run: Path | str,
    config: TrainConfig,
    heldout: Path | str | None = None,
    progress: Progress = silent,
) -> TrainSummary:
    """Fine-tunes a model. Resumes a run that was stopped, and only draws new sample prompts if it is finished.

    If torchrun or `accelerate launch` started several processes, each does its share; the main one's summary counts.

    SIGTERM and Ctrl-C save and stop. The summary then says `finished=False`, and the next call resumes.

    Args:
        folder: the training folder, or the address of one (dreamloom.train.data.folder). Nothing is written to it.
        run: the run's folder (dreamloom.train.run.folder).
        config: how the model is trained.
        heldout: images to evaluate with (dreamloom.train.evaluate.evaluate); None: those that config.held_out holds out
            of the training folder, if any.
        progress: called with the images seen.

    Raises:
        UserError: the config, the folders or the models are wrong, the run belongs to another config, another process
            trains it, the disk is full, or the loss is not finite.
    """
    folder, run, heldout = Path(folder), Path(run), Path(heldout) if heldout else None
    if address := address_of(run):
        raise UserError(f"{address} is an address, and a run is written to a folder of this machine; name one.")
    _refuse_early(config, run)
    was_there = run.exists()
    try:
        with join_group(config.device) as group:
            return _train(folder, run, config, heldout, progress if group.is_main else silent, group)
    finally:
        if processes.is_main() and not was_there:
            discard_unbegun(run)


def _train(
    folder: Path, run: Path, config: TrainConfig, heldout: Path | None, progress: Progress, group: DistributedGroup
) -> TrainSummary:
    group.check_seen(run)
    with _read_once_a_machine(folder, group):
        config = resolve_models(config)
        _refuse_early(config, run)  # again, as the base's family has its own defaults
        check_models(config)
        check_prompts(config)
        dataset, heldout_datasets = read_datasets(folder, heldout, config, progress)
        recipe = run_recipe(dataset, heldout_datasets, config, progress)
    group.check_same(recipe, folder)
    recipe = warm_recipe(recipe, read_settings(run).get("continued"))
    check_run_folder(run, recipe, config)
    if summary := read_summary(run):
        return replace(summary, drawn=_draw_new_prompts(run, dataset, config, progress) if group.is_main else [])
    with _folder_of(run) if group.is_main else nullcontext(), catch_signals() as stop:
        from dreamloom.train.loop.session import open_session  # imports torch

        interrupting = stop.interrupting(progress) if group.is_main else silent
        try:
            with open_session(dataset, heldout_datasets, run, config, interrupting, group) as session:
                if group.is_main:
                    write_settings(run, recipe, folder, heldout, config, to_json(describe_folders(dataset)))
                    write_images(run, dataset)
                return _run(session, config, stop)
        except Interrupted:  # while encoding latents: those that are done are kept, nothing else was begun
            return TrainSummary(finished=False, dataset_images=len(dataset.samples), problems=len(dataset.problems))


def _read_once_a_machine(folder: Path, group: DistributedGroup) -> AbstractContextManager[None]:
    """Lets one process of each machine read, and the others take from its cache; shards at addresses are divided."""
    return nullcontext() if address_of(folder) else group.in_turn(machines_at_once=True)


def _refuse_early(config: TrainConfig, run: Path) -> None:
    check_batch_size(config.batch_size)
    if config.latent_cache is not None:
        refuse_file(config.latent_cache.expanduser())
    if config.fused_backward and processes.world_size() > 1:
        raise UserError("fused_backward is for one process: several average whole gradients; turn it off.")
    if config.base_on_cpu and processes.world_size() > 1:
        raise UserError("base_on_cpu is for one process: several need a model that is on the GPU; turn it off.")
    for name in ("base", "vae", "init_lora"):
        value = getattr(config, name)
        if value is not None and Path(value).resolve().is_relative_to(run.resolve()):
            raise UserError(
                f"{name} {value} lies in the folder of this very run; to train {run} longer, use `dreamloom continue "
                f"{run} --epochs N`, and to build on it, name another folder for the new run."
            )


def _draw_new_prompts(run: Path, dataset: "Dataset", config: TrainConfig, progress: Progress) -> list[str]:
    if not new_prompts(run, config):  # which needs no lock
        return []
    with explain_full_disk(run), lock(run):
        return draw_new_prompts(run, dataset, config, progress)


@contextmanager
def _folder_of(run: Path) -> Iterator[None]:
    """Locks a run's folder during the block."""
    with explain_full_disk(run), lock(run):
        remove_leftovers(run)
        yield


def _run(session: "Session", config: TrainConfig, stop: StopRequest) -> TrainSummary:
    finished = False
    try:
        finished = _loop(session, config, stop)
    except Interrupted:  # while evaluating or drawing; the next call repeats it
        session.distributed.any(True)  # the other processes wait for this
    session.save_checkpoint()
    summary = session.summary(finished)
    if finished and session.distributed.is_main:
        write_summary(session.run, summary)
    return summary


def _loop(session: "Session", config: TrainConfig, stop: StopRequest) -> bool:
    """Trains until the run is finished, and returns True; or until a stop is requested."""
    timetable = session.timetable
    while True:
        if timetable.is_due(config.log_every_n_steps):
            session.log_losses()
        if timetable.is_evaluation_due:
            session.evaluate()
        if timetable.is_due(config.sample_every_n_steps):
            session.draw_samples()
        if timetable.is_checkpoint_due or session.is_best:
            session.save_checkpoint()
        if session.distributed.any(stop.requested) or timetable.is_finished:
            return timetable.is_finished
        session.train_step()
