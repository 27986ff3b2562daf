"""Tells of each folder which share of the images was asked for, and how many are shown."""

import logging
from fractions import Fraction

from dreamloom.train.data.dataset import Dataset
from dreamloom.train.data.schedule import MANY_FORWARD_PASSES, BatchSchedule, mixed_batches_note
from dreamloom.train.evaluate.datasets import MUCH_MEASURED, measured_note

_log = logging.getLogger(__name__)


def count_shares(
    dataset: Dataset, schedule: BatchSchedule, images_seen: int | None
) -> tuple[dict[str, float], dict[str, int]]:
    """Returns by the folder's name the share that was asked for, and the images shown.

    Args:
        dataset: what is trained on.
        schedule: of the run.
        images_seen: where the run ended; None: it shows all its images.
    """
    counts = schedule.images_by_folder(images_seen)
    total = sum((asked for asked, _ in counts.values()), Fraction(0))
    names = {index: dataset.folders[index].name for index in counts}
    asked = {names[index]: float(count / total) for index, (count, _) in counts.items()}
    return asked, {names[index]: count for index, (_, count) in counts.items()}


def log_shares(dataset: Dataset, schedule: BatchSchedule, measured: float) -> None:
    """Logs what `count_shares` returns of the whole run, and whether rare shapes or evaluations slow it down.

    Args:
        dataset: what is trained on.
        schedule: of the run.
        measured: share of the run that its evaluations take.
    """
    asked, shown = count_shares(dataset, schedule, None)
    for name, count in shown.items():
        share = count / sum(shown.values())
        _log.info("%s: %.2f%% of the images asked for, %.2f%% (%d) shown", name, 100 * asked[name], 100 * share, count)
    if (forward_passes := schedule.mean_forward_passes()) >= MANY_FORWARD_PASSES:
        _log.warning(mixed_batches_note(forward_passes))
    if measured > MUCH_MEASURED:
        _log.info(measured_note(measured))
