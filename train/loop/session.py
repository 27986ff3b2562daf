"""One call of train, once the model is loaded: what the loop works on, and the things it does now and then."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit_json, remove_leftovers
from dreamloom.base.progress import Progress
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import CaptionBuilder
from dreamloom.train.data.crops import CropPlanner
from dreamloom.train.data.dataset import Dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import BatchLoader
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.evaluate.evaluate import way
from dreamloom.train.evaluate.held_out_loss import decodable
from dreamloom.train.evaluate.sample import choose_prompts, draw_grid, draw_samples
from dreamloom.train.loop.distributed import Together
from dreamloom.train.loop.history import Learning, judging
from dreamloom.train.loop.loggers import open_boards
from dreamloom.train.loop.loss_window import NotFinite
from dreamloom.train.loop.metrics import Log
from dreamloom.train.loop.trainer import Trainer
from dreamloom.train.model.device import choose_device, peak_memory
from dreamloom.train.model.memory import estimate_memory
from dreamloom.train.model.model import load_model
from dreamloom.train.run import checkpoint
from dreamloom.train.run.folder import TrainSummary, checkpoints, cut_log

_log = logging.getLogger(__name__)


class Session:
    """Opens a run: loads the model, makes the latents, and takes up the newest checkpoint, where there is one.

    Args:
        kinds: held-out images by kind.
        progress: may raise, to break off what can be done again.
        together: the processes that train this run; the main one alone measures, draws and writes.

    Raises:
        UserError: the model, the images or the checkpoint can't be used.
    """

    def __init__(
        self,
        dataset: Dataset,
        kinds: dict[str, Dataset],
        run: Path,
        config: TrainConfig,
        progress: Progress,
        together: Together,
    ) -> None:
        self.run = run
        self.config = config
        self.progress = progress
        self.together = together
        device = choose_device(config.device)
        measured = way(config.base, kinds, judging(config))
        self.model = load_model(config.base, device, config.vae, config.prediction_type, config.zero_terminal_snr)
        cache = (config.latent_cache or run.parent / ".latents").expanduser()
        latents = LatentCache(cache, self.model.vae)
        texts = TextCache(self.model, cache, frozen=config.text_encoder_learning_rate == 0)
        with together.in_turn():
            views = CropPlanner(config).all_views
            self.dataset = dataset.without(latents.add(dataset.samples, config.num_workers, progress, views))
            kinds = {kind: decodable(data, latents, judging(config), progress) for kind, data in kinds.items()}
            texts.add(CaptionBuilder(config).fixed_captions(self.dataset.samples), progress)
        self.course = BatchSchedule(self.dataset, config)
        loader = BatchLoader(self.dataset, latents, texts, config, pin=device.type == "cuda")
        self.trainer = Trainer(self.model, self.course.num_images, config, together)
        self.learning = Learning(run, kinds, measured, latents, config)
        with together.in_turn():
            self._go_on()
        boards = open_boards(run, self.trainer.steps_done, config) if together.main else []
        self.log = Log(run if together.main else None, boards, device)
        self._groups = loader.steps(map(together.share, self.course.batches_after(self.trainer.images_seen)))

    @property
    def at_end(self) -> bool:
        """Whether all images of the run have been seen."""
        return self.trainer.images_seen >= self.course.num_images

    def due(self, every: int) -> bool:
        """Whether what is done every so many steps is due; before the first step and after the last it always is."""
        step = self.trainer.steps_done
        return step == 0 or self.at_end or (every > 0 and step % every == 0)

    @property
    def is_best(self) -> bool:
        """Whether the model as it is now was measured, and found better than at any point before."""
        return self.learning.is_best(self.trainer.images_seen)

    def step(self) -> None:
        """One optimizer step."""
        before = self.trainer.images_seen
        with self.log.working():
            with self.log.waiting():
                group = next(self._groups)
            self.trainer.step(group)
        self.log.images += self.trainer.images_seen - before
        self.progress(self.trainer.images_seen, self.course.num_images, self.log.note)

    def read_losses(self) -> None:
        """Logs the steps since the last look.

        Raises:
            UserError: the loss is no number any more; it names the images of the step where that began.
        """
        try:
            with self.log.working():
                records = self.trainer.window.take()
        except NotFinite as error:
            raise UserError(self._not_finite(error)) from error
        self.log.write(records)

    def measure(self) -> None:
        """Measures what was learned and forgotten; nothing, where that is known."""
        seen = self.trainer.images_seen
        if self.together.main and not self.learning.is_known(seen):
            with self.trainer.averaged():
                self.learning.measure(self.model, seen, self.progress)
            for name in ("learned", "forgotten"):
                change = self.learning.last(name)[0]
                self.log.measured(self.trainer.steps_done, name, change)
                _log.info("after %d images: %s %s", seen, name, "not measured" if change is None else f"{change:.2%}")

    def draw(self) -> None:
        """Draws samples; nothing, where they are there."""
        path = self.run / "samples" / f"{self.trainer.images_seen:09d}.png"
        if self.together.main and not path.exists():
            with self.trainer.averaged():
                draw_samples(self.model, choose_prompts(self.dataset, self.config), path, self.config, self.progress)
            draw_grid(path.parent, self.run / "samples.png")
            self.log.drawn(self.trainer.steps_done, path)

    def save(self) -> None:
        """Writes a checkpoint; nothing, where it is there, or before the first step.

        Raises:
            UserError: the loss is no number any more, or the disk is full; the older checkpoint is still there.
        """
        self.read_losses()
        seen = self.trainer.images_seen
        if self.together.main and seen and seen not in [int(path.name) for path in checkpoints(self.run)]:
            checkpoint.save(self.run, self.trainer, self.config.checkpoints_total_limit)
            _log.info("checkpoint after %d images", seen)

    def summary(self, finished: bool) -> TrainSummary:
        """What the run came to so far."""
        learned, learned_error = self.learning.last("learned")
        forgotten, forgotten_error = self.learning.last("forgotten")
        saved = checkpoints(self.run)
        return TrainSummary(
            finished=finished,
            images_seen=self.trainer.images_seen,
            images=self.course.num_images,
            steps=self.trainer.steps_done,
            pictures=len(self.dataset.samples),
            problems=len(self.dataset.problems),
            learned=learned,
            learned_error=learned_error,
            forgotten=forgotten,
            forgotten_error=forgotten_error,
            checkpoint=str(saved[-1]) if saved else None,
            images_per_second=self.log.rate,
            data_wait=self.log.wait_share,
            peak_memory=peak_memory(self.model.device),
        )

    def close(self) -> None:
        """Lets go of threads and files."""
        self._groups.close()
        self.log.close()

    def _go_on(self) -> None:
        """Takes up the newest checkpoint, and drops what was logged and measured after it."""
        if self.together.main:
            commit_json(self.run / "problems.json", {p.name: p.reason for p in self.dataset.problems})
            for inner in ("checkpoints", "samples"):
                remove_leftovers(self.run / inner)
        saved = checkpoints(self.run)
        if saved:
            checkpoint.load(saved[-1], self.trainer)
        images, problems = len(self.dataset.samples), len(self.dataset.problems)
        _log.info("%d images, %d left out; %d shown in all", images, problems, self.course.num_images)
        _log.info("device %s; begins after %d images seen", self.model.device, self.trainer.images_seen)
        if self.together.main:
            cut_log(self.run, self.trainer.images_seen)
        self.learning.go_on(self.trainer.images_seen)

    def _not_finite(self, error: NotFinite) -> str:
        before = (error.step - 1) * self.config.batch_size * self.config.gradient_accumulation_steps
        batches = islice(self.course.batches_after(before), self.config.gradient_accumulation_steps)
        names = sorted({self.dataset.samples[place].name for batch in batches for place in batch.sample_ids})
        saved = checkpoints(self.run)
        return (
            f"The loss is not a number at step {error.step} (images: {', '.join(names)}); lower the learning rate or "
            f"look at these images: {saved[-1] if saved else 'the base model'} is the last good state."
        )


@contextmanager
def open_session(
    dataset: Dataset,
    kinds: dict[str, Dataset],
    run: Path,
    config: TrainConfig,
    progress: Progress,
    together: Together,
) -> Iterator[Session]:
    """A session, closed at the end.

    Raises:
        UserError: see Session; or a GPU's memory is full.
    """
    try:
        session = Session(dataset, kinds, run, config, progress, together)
        try:
            yield session
        finally:
            session.close()
    except torch.OutOfMemoryError as error:
        needed = estimate_memory(config)
        raise UserError(
            f"The GPU's memory is full{f' (by estimate {needed.total / 2**30:.1f} GiB are needed)' if needed else ''}; "
            "lower batch_size, set gradient_checkpointing, or take a smaller preset."
        ) from error
