"""One call of train, once the model is loaded: what the loop works on, and the things it does now and then."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from base.errors import UserError
from base.files import commit_json, sweep
from base.progress import Progress
from train import checkpoint
from train.batches import Course
from train.cache import LatentCache
from train.config import TrainConfig
from train.dataset import Dataset
from train.device import choose_device
from train.learning import Learning
from train.loader import Loader
from train.log import Log
from train.losses import NotFinite
from train.model import load_model
from train.run import TrainSummary, checkpoints, cut_log
from train.sample import choose_prompts, draw_samples
from train.text import Texts
from train.trainer import Trainer


class Session:
    """Opens a run: loads the model, makes the latents, and takes up the newest checkpoint, where there is one.

    Args:
        kinds: held-out pictures by kind.
        progress: may raise, to break off what can be done again.

    Raises:
        UserError: the model, the pictures or the checkpoint can't be used.
    """

    def __init__(
        self, dataset: Dataset, kinds: dict[str, Dataset], run: Path, config: TrainConfig, progress: Progress
    ) -> None:
        self.run = run
        self.config = config
        self.progress = progress
        device = choose_device(config.device)
        self.model = load_model(config.base, device, config.vae, config.prediction, config.zero_terminal_snr)
        cache = (config.cache or run.parent / ".latents").expanduser()
        latents = LatentCache(cache, self.model.vae)
        self.dataset = dataset.without(latents.add(dataset.samples, config.workers, progress))
        kinds = {
            kind: data.without(latents.add(data.samples, config.workers, progress)) for kind, data in kinds.items()
        }
        commit_json(run / "problems.json", {p.name: p.reason for p in self.dataset.problems})
        self.course = Course(self.dataset, config)
        texts = Texts(self.model, cache, frozen=config.text_encoder_rate == 0)
        texts.add(["", *(sample.caption for sample in self.dataset.samples)], progress)
        loader = Loader(self.dataset, latents, texts, config, pin=device.type == "cuda")
        self.trainer = Trainer(self.model, self.course.images, config)
        self.learning = Learning(run, kinds, latents, config)
        self._go_on()
        self.log = Log(run, self.trainer.steps_done)
        self._groups = loader.steps(self.course.after(self.trainer.images_seen))

    @property
    def at_end(self) -> bool:
        """Whether all pictures of the run have been seen."""
        return self.trainer.images_seen >= self.course.images

    def due(self, every: int) -> bool:
        """Whether what is done every so many steps is due; before the first step and after the last it always is."""
        step = self.trainer.steps_done
        return step == 0 or self.at_end or (every > 0 and step % every == 0)

    def step(self) -> None:
        """One optimizer step."""
        before = self.trainer.images_seen
        with self.log.working():
            with self.log.waiting():
                group = next(self._groups)
            self.trainer.step(group)
        self.log.images += self.trainer.images_seen - before
        self.progress(self.trainer.images_seen, self.course.images, self.log.note)

    def read_losses(self) -> None:
        """Logs the steps since the last look.

        Raises:
            UserError: the loss is no number any more; it names the pictures of the step where that began.
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
        if not self.learning.is_known(seen):
            with self.trainer.averaged():
                self.learning.measure(self.model, seen, self.progress)
            for name in ("learned", "forgotten"):
                self.log.measured(self.trainer.steps_done, name, self.learning.last(name)[0])

    def draw(self) -> None:
        """Draws samples; nothing, where they are there."""
        path = self.run / "samples" / f"{self.trainer.images_seen:09d}.png"
        if not path.exists():
            with self.trainer.averaged():
                draw_samples(self.model, choose_prompts(self.dataset, self.config), path, self.config, self.progress)

    def save(self) -> None:
        """Writes a checkpoint; nothing, where it is there, or before the first step.

        Raises:
            UserError: the loss is no number any more, or the disk is full; the older checkpoint is still there.
        """
        self.read_losses()
        seen = self.trainer.images_seen
        if seen and seen not in [int(path.name) for path in checkpoints(self.run)]:
            checkpoint.save(self.run, self.trainer, self.config.keep)

    def summary(self, finished: bool) -> TrainSummary:
        """What the run came to so far."""
        learned, learned_error = self.learning.last("learned")
        forgotten, forgotten_error = self.learning.last("forgotten")
        saved = checkpoints(self.run)
        return TrainSummary(
            finished=finished,
            images_seen=self.trainer.images_seen,
            images=self.course.images,
            steps=self.trainer.steps_done,
            pictures=len(self.dataset.samples),
            problems=len(self.dataset.problems),
            learned=learned,
            learned_error=learned_error,
            forgotten=forgotten,
            forgotten_error=forgotten_error,
            checkpoint=str(saved[-1]) if saved else None,
            images_per_second=self.log.rate,
        )

    def close(self) -> None:
        """Lets go of threads and files."""
        self._groups.close()
        self.log.close()

    def _go_on(self) -> None:
        """Takes up the newest checkpoint, and drops what was logged and measured after it."""
        sweep(self.run / "checkpoints")
        saved = checkpoints(self.run)
        if saved:
            checkpoint.load(saved[-1], self.trainer)
        cut_log(self.run, self.trainer.images_seen)
        self.learning.go_on(self.trainer.images_seen)

    def _not_finite(self, error: NotFinite) -> str:
        names = sorted({self.dataset.samples[place].name for batch in error.batches for place in batch.samples})
        saved = checkpoints(self.run)
        return (
            f"The loss is not a number at step {error.step} (pictures: {', '.join(names)}); lower the learning rate or "
            f"look at these pictures: {saved[-1] if saved else 'the base model'} is the last good state."
        )


@contextmanager
def open_session(
    dataset: Dataset, kinds: dict[str, Dataset], run: Path, config: TrainConfig, progress: Progress
) -> Iterator[Session]:
    """A session, closed at the end."""
    session = Session(dataset, kinds, run, config, progress)
    try:
        yield session
    finally:
        session.close()
