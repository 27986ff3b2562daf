"""Draws from a trained model: prompts × seeds as columns, the base and the checkpoints as rows of one grid."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.config import SampleConfig
from dreamloom.train.evaluate.drawings import Drawing, plan_prompts
from dreamloom.train.evaluate.prompts import SamplePrompt, check_prompts, configured_prompts
from dreamloom.train.evaluate.sample_files import (
    Cells,
    image_grid,
    list_samples,
    read_columns,
    refuse_foreign,
    save_sheet,
)
from dreamloom.train.families.check import check_base_model
from dreamloom.train.families.suit import suit_family
from dreamloom.train.run.find import TrainedModel, find_trained_model
from dreamloom.train.run.folder import list_checkpoints


@dataclass(frozen=True)
class _Row:
    """What draws a row of the grid."""

    label: str
    base: str
    trained: TrainedModel
    is_base: bool


def draw_model(model: Path | str, output: Path, config: SampleConfig, progress: Progress = silent) -> int:
    """Writes a PNG of what a model draws, below what its base draws in the same noise.

    Args:
        model: a run, of which each kept checkpoint is a row; a checkpoint; or a whole model.
        output: the PNG.
        config: what is drawn, and how.
        progress: called with the images drawn.

    Returns:
        The number of images.

    Raises:
        UserError: the model, a checkpoint or a prompt can't be used, there is no prompt, or the file is none of ours.
    """
    refuse_foreign(output)  # before anything is drawn
    trained = find_trained_model(model)
    settings = _settings(trained, config)
    check_prompts(settings)
    drawings = _plan(configured_prompts(settings), config.seeds, settings)
    if not drawings:
        raise UserError(f"{model} has no prompts of its own; name some with --prompts.")
    rows = list(_rows(model, trained, settings, config))
    cells: dict[str, Cells] = {}
    for row in rows:
        done = len(cells) * len(drawings)
        counted = _Counted(progress, done, len(rows) * len(drawings), row.label)
        cells[row.label] = _draw_row(row, drawings, settings, config, counted)
    save_sheet(image_grid([drawing.heading for drawing in drawings], cells), output)
    return len(rows) * len(drawings)


def _settings(trained: TrainedModel, config: SampleConfig) -> TrainConfig:
    """Returns the settings of the run, with what `config` sets in their place."""
    values = {
        "sample_negative_prompt": config.negative_prompt,
        "resolution": config.resolution,
        "sample_steps": config.sample_steps,
        "guidance_scale": config.guidance_scale,
        "sample_scheduler": config.scheduler,
    }
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    if config.prompts or config.prompts_file:  # in place of the run's own
        given |= {"sample_prompts": config.prompts, "sample_prompts_file": config.prompts_file}
    elif trained.checkpoint is not None and not (trained.config and configured_prompts(trained.config)):
        given["sample_prompts"] = _drawn_prompts(trained.checkpoint.parent.parent)
    run = trained.config or suit_family(TrainConfig(base=trained.name), trained.name)
    hardware = {"batch_size": config.batch_size, "precision": config.precision, "device": config.device}
    return run.model_copy(update={**given, **hardware})


def _drawn_prompts(run: Path) -> list[str]:
    """Returns what a run drew that names no prompts: some captions."""
    files = list_samples(run / "samples")
    return [column.prompt for column in read_columns(files[-1])] if files else []


def _plan(prompts: list[SamplePrompt], seeds: list[int], settings: TrainConfig) -> list[Drawing]:
    """Plans each prompt with each seed; one that names its own seed, once."""
    drawings = []
    for prompt in prompts:
        for seed in seeds if prompt.seed is None else [prompt.seed]:
            planned = plan_prompts([prompt.model_copy(update={"seed": seed})], settings, 0)
            mark = f" (seed {seed})" if len(seeds) > 1 else ""
            drawings += [Drawing(**{**vars(each), "heading": each.heading + mark}) for each in planned]
    return drawings


def _rows(model: Path | str, trained: TrainedModel, settings: TrainConfig, config: SampleConfig) -> Iterator[_Row]:
    """Yields the base, and then what was trained: checkpoints, or a whole model."""
    base = config.base or (settings.base if trained.config else None)
    if base is not None:
        check_base_model(base)
        yield _Row("before", base, trained, is_base=True)
    if trained.config is None or trained.checkpoint is None:
        yield _Row(Path(trained.name).name, trained.name, trained, is_base=True)
        return
    is_run = trained.checkpoint != Path(model).expanduser()
    kept = {int(path.name): path for path in list_checkpoints(trained.checkpoint.parent.parent)}
    asked = config.checkpoints or (sorted(kept) if is_run else [int(trained.checkpoint.name)])
    for images_seen in asked:
        if images_seen not in kept:
            names = ", ".join(map(str, sorted(kept)))
            raise UserError(f"{model} keeps no checkpoint {images_seen}; it keeps {names}.")
        found = find_trained_model(kept[images_seen])
        yield _Row(f"{images_seen:,} images seen", base or settings.base, found, is_base=False)


def _draw_row(
    row: _Row, drawings: list[Drawing], settings: TrainConfig, config: SampleConfig, progress: Progress
) -> Cells:
    from dreamloom.train.evaluate.sample import draw_images  # imports torch
    from dreamloom.train.model.device import choose_device

    loaded = row.trained.load_base(row.base, choose_device(config.device), config.precision)
    if not row.is_base:
        loaded = row.trained.load(loaded, config.use_ema)
    return draw_images(loaded, drawings, settings, progress, row.label)


@dataclass(frozen=True)
class _Counted:
    """Progress of a row as that of the whole grid."""

    progress: Progress
    before: int
    total: int
    label: str

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        self.progress(self.before + done, self.total, note)
