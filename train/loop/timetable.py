"""When something periodic is due in a run: by steps, by epochs, by time."""

import time
from bisect import bisect_right

from dreamloom.train.loop.trainer import Trainer
from dreamloom.train.settings.run import steps_between


class Timetable:
    """Tells what is due where the trainer stands.

    Args:
        trainer: the run's.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.config = trainer.config
        self.ended = ""
        """Why the run ends before all images were seen; empty if it does not."""
        self._saved_at = time.monotonic()

    @property
    def is_finished(self) -> bool:
        """Whether all images of the run have been seen, or its evaluations end it."""
        return self.trainer.images_seen >= self.trainer.schedule.num_images or bool(self.ended)

    def is_due(self, every_n_steps: int | None) -> bool:
        """Tells whether something periodic is due; it always is before the first step and after the last."""
        step, every_n_steps = self.trainer.num_steps, steps_between(every_n_steps, self.trainer.schedule.planned_steps)
        return step == 0 or self.is_finished or (every_n_steps > 0 and step % every_n_steps == 0)

    @property
    def is_evaluation_due(self) -> bool:
        """Whether an evaluation is due."""
        is_early = self.trainer.num_steps in self.trainer.schedule.early_steps
        return is_early or self.is_due(self.config.evaluate_every_n_steps)

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether a checkpoint is due by steps, by epochs or by time.

        Processes that share weights agree on the time, as all of them write; of others the main one does.
        """
        minutes, epochs = self.config.checkpoint_every_n_minutes, self.config.checkpoint_every_n_epochs
        is_old = bool(minutes) and time.monotonic() - self._saved_at >= 60 * minutes
        if self.trainer.distributed.any(is_old) if self.trainer.sharding else is_old:
            return True
        seen, ends = self.trainer.images_seen, self.trainer.schedule.epoch_ends
        before = bisect_right(ends, max(0, seen - self.trainer.schedule.step_size))
        if epochs and bisect_right(ends, seen) // epochs > before // epochs:
            return True
        return self.is_due(self.config.checkpoint_every_n_steps)

    def note_saved(self) -> None:
        """Counts the time to the next checkpoint from now on."""
        self._saved_at = time.monotonic()
