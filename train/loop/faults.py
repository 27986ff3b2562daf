"""Explains a loss that is not a number."""

from collections.abc import Sequence
from pathlib import Path

from dreamloom.train.data.dataset import Dataset
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.loop.loss_window import NonFiniteLossError


def explain(error: NonFiniteLossError, dataset: Dataset, schedule: BatchSchedule, checkpoints: Sequence[Path]) -> str:
    """Names the images of the step where it began, and the last good state."""
    step = next(schedule.steps_after((error.step - 1) * schedule.step_size))
    sample_ids = {sample_id for slot in step for batch in slot for sample_id in batch.sample_ids}
    names = sorted(dataset.samples[sample_id].name for sample_id in sample_ids)
    return (
        f"The loss is not a number at step {error.step} (images: {', '.join(names)}); lower the learning rate or "
        f"look at these images: {checkpoints[-1] if checkpoints else 'the base model'} is the last good state."
    )
