"""A training session: what one call of train works on once the model is loaded, and what it does now and then."""

import logging
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_json, remove_leftovers
from dreamloom.base.progress import Progress
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import CaptionBuilder
from dreamloom.train.data.dataset import Dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import BatchLoader, LoadedBatch
from dreamloom.train.data.ratio_schedule import RatioSchedule
from dreamloom.train.data.schedule import Batch, Step
from dreamloom.train.data.shown import encode_shown
from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.evaluate.config import as_trained
from dreamloom.train.evaluate.datasets import measured_share
from dreamloom.train.evaluate.drawings import plan_drawings
from dreamloom.train.evaluate.evaluate import evaluation_recipe
from dreamloom.train.evaluate.held_out_loss import drop_undecodable
from dreamloom.train.evaluate.likeness import Likeness
from dreamloom.train.evaluate.measure import MEASURES
from dreamloom.train.evaluate.sample import draw_samples
from dreamloom.train.evaluate.sample_files import draw_grid
from dreamloom.train.export.writers import export_single_file
from dreamloom.train.families.base_notes import base_notes
from dreamloom.train.families.memory import estimate_memory
from dreamloom.train.families.opening import load_base_model
from dreamloom.train.families.suit import check_opened
from dreamloom.train.loop.distributed import DistributedGroup
from dreamloom.train.loop.faults import explain
from dreamloom.train.loop.history import EvaluationHistory
from dreamloom.train.loop.loggers import open_loggers
from dreamloom.train.loop.loss_window import NonFiniteLossError
from dreamloom.train.loop.metrics import MetricsLog
from dreamloom.train.loop.shares import count_shares, log_shares
from dreamloom.train.loop.timetable import Timetable
from dreamloom.train.loop.trainer import Trainer
from dreamloom.train.model.device import choose_device, peak_memory
from dreamloom.train.model.family import changing_text_encoders, trained_components
from dreamloom.train.model.trainable import store_weights
from dreamloom.train.run import checkpoint
from dreamloom.train.run.environment import describe_environment, note_environment
from dreamloom.train.run.folder import TrainSummary, list_checkpoints, truncate_log
from dreamloom.train.run.idle_settings import idle_notes

_log = logging.getLogger(__name__)


class Session:
    """Loads the model, encodes what is not cached, and resumes from the newest checkpoint if there is one.

    Args:
        dataset: what is trained on.
        heldout: held-out images by kind.
        run: the run's folder.
        config: the run's.
        progress: may raise Interrupted, to break off what can be repeated.
        distributed: the processes that train this run; only the main one evaluates, draws and writes.

    Raises:
        UserError: the model, the images or the checkpoint can't be used.
    """

    def __init__(
        self,
        dataset: Dataset,
        heldout: Mapping[str, Dataset],
        run: Path,
        config: TrainConfig,
        progress: Progress,
        distributed: DistributedGroup,
    ) -> None:
        self.run = run
        self.config = config
        self.progress = progress
        self.distributed = distributed
        device = choose_device(config.device)
        recipe = evaluation_recipe(config.base, heldout, as_trained(config))
        self.model = load_base_model(config, config.base, device, at_rest=True)
        check_opened(config, self.model.family, dict(self.model.denoiser.config), dict(self.model.vae.config))
        store_weights(self.model, config)
        captions = CaptionBuilder(config)
        cache_folder = (config.latent_cache or run.parent / ".latents").expanduser()
        latent_cache = LatentCache(cache_folder, self.model.vae, dataset.contents)
        text_cache = TextCache(self.model, cache_folder, changing_text_encoders(config, self.model.family))
        with distributed.in_turn():
            self.dataset, self.schedule = encode_shown(dataset, latent_cache, config, progress)
            heldout = {
                kind: drop_undecodable(images, latent_cache, as_trained(config), progress)
                for kind, images in heldout.items()
            }
            shown = [self.dataset.samples[place] for place in self.schedule.shown()]
            text_cache.add(captions.fixed_captions(shown), progress)
        shared = trained_components(config, self.model.family) if config.shard and distributed.world_size > 1 else ()
        self.model.settle(text_cache.stores if captions.are_fixed(shown) else (), shared)
        self.loader = BatchLoader(self.dataset, latent_cache, text_cache, config, pin=device.type == "cuda")
        self.trainer = Trainer(self.model, self.schedule, config, distributed)
        self.timetable = Timetable(self.trainer)
        likeness = Likeness(self.dataset, heldout["training"], config) if config.likeness_clip else None
        self.history = EvaluationHistory(run, heldout, recipe, latent_cache, config, likeness)
        with distributed.in_turn():
            self._resume()
        log_shares(self.dataset, self.schedule, measured_share(heldout, self.schedule, config))
        loggers = open_loggers(run, self.trainer.num_steps, config) if distributed.is_main else []
        self.log = MetricsLog(run if distributed.is_main else None, loggers, device)
        self._steps = self._load_steps()

    @property
    def is_best(self) -> bool:
        """Whether the model as it is now was evaluated, and none so far is better."""
        return self.history.is_best(self.trainer.images_seen)

    def train_step(self) -> None:
        """Takes an optimizer step."""
        images_before = self.trainer.images_seen
        with self.log.time_training():
            with self.log.time_waiting():
                batches = next(self._steps)
            self.trainer.step(batches)
        self.log.images += self.trainer.images_seen - images_before
        self.progress(self.trainer.images_seen, self.schedule.num_images, self.log.note)

    def log_losses(self) -> None:
        """Logs the steps since the last call; waits for the device.

        Raises:
            UserError: the loss is not finite; it names the images of the step where that began.
        """
        try:
            with self.log.time_training():
                records = self.trainer.window.take()
        except NonFiniteLossError as error:
            raise UserError(explain(error, self.dataset, self.schedule, list_checkpoints(self.run))) from error
        self.log.log_steps(records)

    def evaluate(self) -> None:
        """Measures what was learned and forgotten, unless it is known for this point."""
        if not self.history.is_evaluated(self.trainer.images_seen):
            with self.trainer.averaged_weights():
                self.history.points = self.distributed.from_main(self._measure)
            self._heed_evaluations()
            if isinstance(self.schedule, RatioSchedule):  # the steps that were known are taken
                self._steps.close()
                self._steps = self._load_steps()

    def _measure(self) -> list[dict[str, Any]]:
        """Evaluates the model as it is now; logs and returns the points of the history."""
        images_seen = self.trainer.images_seen
        self.history.evaluate(self.model, images_seen, self.schedule.progress(images_seen), self.progress)
        for name, label in self.history.curves.items():
            change = self.history.latest(name)[0]
            self.log.log_evaluation(self.trainer.num_steps, name, change)
            text = "not measured" if change is None else f"{change:.2%}"
            _log.info("after %d images: %s %s", images_seen, label, text)
        for text in filter(None, (self.history.verdict, self.history.limits)):
            _log.info("after %d images: %s", images_seen, text)
        return self.history.points

    def _heed_evaluations(self) -> None:
        """Decides the ratio of what follows, and ends the run if its evaluations say so.

        All processes decide alike, as they have the same evaluations.
        """
        images_seen = self.trainer.images_seen
        moving = self.schedule if isinstance(self.schedule, RatioSchedule) else None
        ratios, rates = zip(*self.history.stretches, strict=True) if moving else ((), ())
        if moving:  # the ratios up to now decide how long the run is
            moving.give_ratios(ratios[:-1])
        num_images = self.schedule.num_images
        if images_seen < num_images and (end := self.history.find_end(num_images)):
            self.timetable.ended = f"ended after {images_seen:,} of {num_images:,} images: {end}"
            _log.warning(self.timetable.ended)
        elif moving:
            moving.give_ratios(ratios)
            self.trainer.optimizer.factor = float(rates[-1])
            for name, values in (("ratios of ground truth", ratios), ("factors of the learning rates", rates)):
                _log.info("%s so far: %s", name, ", ".join(f"{float(value):g}" for value in values))

    def draw_samples(self) -> None:
        """Draws samples, unless there are some of this point."""
        path = self.run / "samples" / f"{self.trainer.images_seen:09d}.png"
        if self.distributed.from_main(path.exists):
            return
        with self.trainer.averaged_weights():
            if self.trainer.sharding:
                self.distributed.from_main(partial(self._draw, path))
            elif self.distributed.is_main:
                self._draw(path)

    def _draw(self, path: Path) -> bool:
        drawings = plan_drawings(self.dataset, self.config, self.trainer.images_seen)
        draw_samples(self.model, drawings, path, self.config, self.progress)
        draw_grid(path.parent, self.run / "samples.png")
        self.log.log_samples(self.trainer.num_steps, path)
        return True

    def save_checkpoint(self) -> None:
        """Writes a checkpoint, unless there is one of this point or no step was taken.

        Raises:
            UserError: the loss is not finite, or the disk is full; the older checkpoint is still there.
        """
        self.log_losses()
        images_seen = self.trainer.images_seen
        is_new = str(images_seen) not in [path.name for path in list_checkpoints(self.run)]
        if self.trainer.sharding:
            is_new = self.distributed.from_main(lambda: is_new)
            if images_seen and is_new and not self.distributed.is_main:
                checkpoint.help_save(self.trainer)
        if self.distributed.is_main and images_seen and is_new:
            path = checkpoint.save(self.run, self.trainer, self.config.checkpoints_total_limit)
            _log.info("checkpoint after %d images", images_seen)
            if self.config.checkpoint_single_file:
                export_single_file(path, self.run / "models" / str(images_seen))
        self.timetable.note_saved()

    def summary(self, finished: bool) -> TrainSummary:
        """Summarizes the run so far."""
        measures = {name: self.history.latest(name) for name in MEASURES}
        checkpoints = list_checkpoints(self.run)
        asked, shown = count_shares(
            self.dataset, self.schedule, self.trainer.images_seen if self.timetable.ended else None
        )
        return TrainSummary(
            finished=finished,
            dataset_images=len(self.dataset.samples),
            problems=len(self.dataset.problems),
            images_seen=self.trainer.images_seen,
            total_images=self.schedule.num_images,
            steps=self.trainer.num_steps,
            asked=asked,
            shown=shown,
            drawn=[],
            **{name: change for name, (change, _) in measures.items()},
            **{f"{name}_error": error for name, (_, error) in measures.items()},
            verdict=self.history.verdict,
            likeness=self.history.latest("likeness")[0],
            limits=self.history.limits,
            ended=self.timetable.ended,
            checkpoint=str(checkpoints[-1]) if checkpoints else None,
            images_per_second=self.log.images_per_second,
            data_wait=self.log.data_wait,
            peak_memory=peak_memory(self.model.device),
        )

    def close(self) -> None:
        """Stops the threads and closes the files."""
        self._steps.close()
        self.log.close()

    def _resume(self) -> None:
        """Loads the newest checkpoint, and drops what was logged and evaluated after it."""
        if self.distributed.is_main:
            commit_json(self.run / "problems.json", {p.name: p.reason for p in self.dataset.problems})
            for subfolder in ("checkpoints", "samples"):
                remove_leftovers(self.run / subfolder)
        checkpoint.resume(self.run, self.trainer)
        images, problems = len(self.dataset.samples), len(self.dataset.problems)
        _log.info("%d images, %d left out; %d shown in total", images, problems, self.schedule.num_images)
        _log.info("device %s; begins after %d images seen", self.model.device, self.trainer.images_seen)
        if self.distributed.is_main:
            idle = idle_notes(self.config, self.schedule.num_images)
            for note in (*self.dataset.notes, *base_notes(self.config.base), *idle):
                _log.warning(note)
            environment = describe_environment(self.model.device, self.distributed.world_size)
            note_environment(self.run, self.trainer.images_seen, environment)
            truncate_log(self.run, self.trainer.images_seen)
        self.history.resume(self.trainer.images_seen)
        self._heed_evaluations()

    def _load_steps(self) -> Generator[list[LoadedBatch]]:
        """Loads the steps that are left, as far as they are known."""
        return self.loader.steps(map(self._shard, self.schedule.steps_after(self.trainer.images_seen)))

    def _shard(self, step: Step) -> list[Batch]:
        """This process's batches of a step; those that a compiled denoiser takes are padded to one size."""
        batches = (self.distributed.shard_evenly if self.trainer.sharding else self.distributed.shard)(step)
        if not self.config.compile:
            return batches
        return [batch.padded(self.config.batch_size // self.distributed.world_size) for batch in batches]


@contextmanager
def open_session(
    dataset: Dataset,
    heldout: Mapping[str, Dataset],
    run: Path,
    config: TrainConfig,
    progress: Progress,
    distributed: DistributedGroup,
) -> Iterator[Session]:
    """Opens a session for the duration of the block.

    Raises:
        UserError: see Session; or the GPU's memory is full.
    """
    try:
        session = Session(dataset, heldout, run, config, progress, distributed)
        try:
            yield session
        finally:
            session.close()
    except torch.OutOfMemoryError as error:
        needed = estimate_memory(config)
        estimate = f" (by estimate {needed.total / 2**30:.1f} GiB are needed)" if needed else ""
        raise UserError(
            f"The GPU's memory is full{estimate}; lower batch_size, set gradient_checkpointing, or choose a smaller "
            "preset."
        ) from error
