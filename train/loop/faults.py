"""Explains a loss that is not a number."""

from collections.abc import Sequence
from pathlib import Path

from dreamloom.base.errors import UserError
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
    begin = (error.step - 1) * schedule.step_size
    last, newest = _last_good(checkpoints, begin), _last_good(checkpoints, begin + 1)
    if last == newest:
        return f"{where}; lower the learning rate or look at these images: {last} is the last good state."
    return (
        f"{where}; lower the learning rate or look at these images. If they are at fault, {newest} is the last good "
        f"state; if the rate is, {last} is."
    )


def explain_held_out(error: UserError, images_seen: int, checkpoints: Sequence[Path]) -> UserError:
    """Adds to a held-out loss that is not a number when that was, and the last good state."""
    last = _last_good(checkpoints, images_seen)
    after = f" That was after {images_seen:,} images; {last} is the last good state." if images_seen else ""
    return UserError(f"{error}{after}")


def _last_good(checkpoints: Sequence[Path], before: int) -> str:
    """Names the newest state of a run before so many images were seen: from it, a step went well."""
    good = [str(path) for path in checkpoints if int(path.name) < before]
    return good[-1] if good else "the base model"
