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
    where = f"The loss is not a number at step {error.step} (images: {', '.join(names)})"
    if error.step == 1:
        return (
            f"{where}, before anything was learned: the base model or its VAE is damaged, or overflows in half "
            "precision. Copy it again, name another, set precision to fp32, or look at these images."
        )
    last = checkpoints[-1] if checkpoints else "the base model"
    return f"{where}; lower the learning rate or look at these images: {last} is the last good state."
