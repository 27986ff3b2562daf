"""Draws prompts that are new in the config of a finished run, from the checkpoints that it keeps. Trains nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dreamloom.base.progress import Progress
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.drawings import Drawing, plan_drawings
from dreamloom.train.evaluate.sample_files import (
    column_of,
    draw_grid,
    is_drawn,
    list_samples,
    read_columns,
    read_samples,
    write_samples,
)
from dreamloom.train.run.find import find_trained_model
from dreamloom.train.run.folder import list_checkpoints

if TYPE_CHECKING:
    from dreamloom.train.data.dataset import Dataset


def new_prompts(run: Path, config: TrainConfig) -> list[str]:
    """Returns the prompts of a config that the newest samples of a run do not show, or show drawn in another way."""
    return [drawing.heading for drawing in _missing(run, plan_drawings(None, config, 0))]


def draw_new_prompts(run: Path, dataset: "Dataset", config: TrainConfig, progress: Progress) -> list[str]:
    """Draws what the newest samples of a finished run do not show: with the base, and with each kept checkpoint.

    Columns of prompts that are no longer in the config stay.

    Returns:
        The headings of what is new.
    """
    new = _missing(run, plan_drawings(dataset, config, 0))
    if not new:
        return []
    for checkpoint in [None, *list_checkpoints(run)]:
        images_seen = 0 if checkpoint is None else int(checkpoint.name)
        drawings = plan_drawings(dataset, config, images_seen)
        _add(run / "samples" / f"{images_seen:09d}.png", drawings, checkpoint, run, config, progress)
    draw_grid(run / "samples", run / "samples.png")
    return [drawing.heading for drawing in new]


def _missing(run: Path, drawings: Sequence[Drawing]) -> list[Drawing]:
    files = list_samples(run / "samples")
    columns = read_columns(files[-1]) if files else []
    return [drawing for drawing in drawings if not is_drawn(columns, drawing)]


def _add(
    path: Path, drawings: Sequence[Drawing], checkpoint: Path | None, run: Path, config: TrainConfig, progress: Progress
) -> None:
    """Draws what a file of samples does not show, and writes the file anew: the config's prompts, then the others."""
    from dreamloom.train.evaluate.sample import draw_images  # imports torch
    from dreamloom.train.model.device import choose_device

    old = list(zip(*read_samples(path), strict=True)) if path.is_file() else []
    new = [drawing for drawing in drawings if not is_drawn([column for column, _ in old], drawing)]
    trained = find_trained_model(run if checkpoint is None else checkpoint)
    model = trained.load_base(config.base, choose_device(config.device), config.precision, config.vae)
    if checkpoint is not None:
        model = trained.load(model, use_ema=True)
    images = draw_images(model, new, config, progress, f"drawing new prompts after {int(path.stem):,} images")
    old += [(column_of(drawing, image), image) for drawing, image in zip(new, images, strict=True)]
    places = {drawing.key: place for place, drawing in enumerate(drawings)}
    shown = sorted(old, key=lambda pair: places.get(pair[0].key, len(places)))
    write_samples(path, [column for column, _ in shown], [image for _, image in shown])
