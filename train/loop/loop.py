"""The training loop: a training folder and a base model → a run."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dreamloom.base import processes
from dreamloom.base.disk import explain_full_disk
from dreamloom.base.files import lock, remove_leftovers
from dreamloom.base.progress import Progress, silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.evaluate.evaluate import read_heldout
from dreamloom.train.loop.interrupt import Interrupted, Stop, on_signal
from dreamloom.train.model.check import check_models
from dreamloom.train.run.folder import TrainSummary, check_same, read_summary, recipe_of, write_settings, write_summary

if TYPE_CHECKING:
    from dreamloom.train.loop.session import Session


def train(
    folder: Path | str,
    run: Path | str,
    config: TrainConfig,
    heldout: Path | str | None = None,
    progress: Progress = silent,
) -> TrainSummary:
    """Fine-tunes a model; goes on where the run stopped, and does nothing where it is finished.

    Started by torchrun or `accelerate launch`, this process does its share; the summary of the main one counts.

    SIGTERM and Ctrl-C save and stop; the summary then says `finished=False`, and the next call goes on.

    Args:
        folder: the training folder (dreamloom.train.data.folder). Nothing is written to it.
        run: the run's folder (dreamloom.train.run.folder).
        heldout: images to measure learning and forgetting by (train.evaluate.evaluate); none: nothing is measured.

    Raises:
        UserError: the config, the folders or the models are wrong, the run belongs to another config, another process
            trains it, the disk is full, or the loss is no number any more.
    """
    folder, run, heldout = Path(folder), Path(run), Path(heldout) if heldout else None
    check_models(config)
    dataset = read_dataset(
        folder, config.resolution, config.bucket_reso_steps, config.num_workers, config.upscale, progress
    )
    kinds = read_heldout(heldout, config.resolution, config.bucket_reso_steps, config.num_workers, config.upscale)
    made = recipe_of(dataset, kinds, config)
    check_same(run, made, config)
    if done := read_summary(run):
        return done
    main = processes.is_main()
    with explain_full_disk(run), lock(run) if main else nullcontext(), on_signal() as stop:
        if main:
            remove_leftovers(run)
            write_settings(run, made, folder, heldout, config)
        from dreamloom.train.loop.distributed import join
        from dreamloom.train.loop.session import open_session
        from dreamloom.train.model.device import choose_device  # torch from here on

        watched = stop.breaks(progress if main else silent)
        try:
            with (
                join(choose_device(config.device), config.batch_size) as together,
                open_session(dataset, kinds, run, config, watched, together) as session,
            ):
                return _run(session, config, stop)
        except Interrupted:  # the latents were being made: what is made is kept, nothing else was begun
            return TrainSummary(finished=False, pictures=len(dataset.samples), problems=len(dataset.problems))


def _run(session: "Session", config: TrainConfig, stop: Stop) -> TrainSummary:
    complete = False
    try:
        complete = _loop(session, config, stop)
    except Interrupted:  # a measurement or samples were broken off; the next call makes them
        session.together.any(True)  # where the other processes wait
    session.save()
    summary = session.summary(complete)
    if complete and session.together.main:
        write_summary(session.run, summary)
    return summary


def _loop(session: "Session", config: TrainConfig, stop: Stop) -> bool:
    """Trains to the end of the run, and returns True; or until a stop is wanted."""
    while True:
        if session.due(config.log_every_n_steps):
            session.read_losses()
        if session.due(config.evaluate_every_n_steps):
            session.measure()
        if session.due(config.sample_every_n_steps):
            session.draw()
        if session.due(config.checkpoint_every_n_steps) or session.is_best:
            session.save()
        if session.together.any(stop.wanted) or session.at_end:
            return session.at_end
        session.step()
