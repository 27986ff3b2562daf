"""The probes of a tuning: short runs that differ in the ratio of ground truth, and show the same other images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import find_ground_truth
from dreamloom.train.data.ratio import with_ratio
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.evaluate.datasets import read_datasets
from dreamloom.train.families.check import check_models
from dreamloom.train.families.suit import resolve_models
from dreamloom.train.loop.limits import has_limits
from dreamloom.train.run.folder import TrainSummary, read_summary, run_recipe
from dreamloom.train.tune.config import TuneConfig

LIMIT_MEAN, LIMIT_WORST = 0.02, 0.05
"""Limits where the config of the run has none."""


@dataclass(frozen=True)
class Probe:
    """A short run."""

    folder: Path
    """Of the run; its name has the ratio and the recipe, so that another config or dataset has another folder."""
    ratio: float
    prior_prediction_weight: float | None
    """None: prior prediction is as the run's config has it."""
    config: TrainConfig
    images: int
    """Images that it shows."""

    @property
    def title(self) -> str:
        """What people see of it."""
        weight = self.prior_prediction_weight
        return f"ratio {self.ratio:g}" + ("" if weight is None else f", prior prediction {weight:g}")

    @property
    def summary(self) -> TrainSummary | None:
        """The run's summary; None where it is not finished."""
        return read_summary(self.folder)


def plan_probes(
    folder: Path,
    output: Path,
    config: TrainConfig,
    tuning: TuneConfig,
    heldout: Path | None = None,
    progress: Progress = silent,
) -> list[Probe]:
    """Returns the probes of a tuning, those with the least ground truth first; trains nothing.

    Args:
        folder: the training folder.
        output: folder of the tuning.
        config: of the run that is to come.
        tuning: what is probed.
        heldout: the folder of held-out images; None: those that the config holds out.
        progress: called with the images read.

    Raises:
        UserError: the config, the folders or the models are wrong, or nothing is held out to measure the limits by.
    """
    if not config.ground_truth:
        raise UserError("tune needs ground_truth: name the folders that hold images of what is known.")
    config = resolve_models(_as_probed(config))
    check_models(config)
    dataset, held = read_datasets(folder, heldout, config, progress)
    ground_truth = find_ground_truth(dataset, config)
    counts = BatchSchedule(dataset, config).images_by_folder()
    others = sum(shown for place, (_, shown) in counts.items() if place not in ground_truth)
    probes = []
    for ratio, weight in _combinations(tuning):
        settings = _settings(config, ratio, weight, others, tuning.share)
        of_probe = config.model_copy(update=settings)
        recipe = run_recipe(with_ratio(dataset, ground_truth, ratio), held, of_probe, progress)
        name = f"{ratio:g}" if weight is None else f"{ratio:g}-prior-{weight:g}"
        images = settings["max_train_steps"] * _step_images(config)
        probes.append(Probe(output / "probes" / f"{name}-{recipe[:8]}", ratio, weight, of_probe, images))
    return probes


def _as_probed(config: TrainConfig) -> TrainConfig:
    """Returns a config with limits, that measures once, before and after, and keeps what a killed probe needs."""
    settings: dict[str, Any] = {"auto_ratio": False, "ground_truth_ratio": None, "patience": 0, "wandb_project": None}
    settings |= {f"{what}_every_n_steps": 0 for what in ("evaluate", "sample", "checkpoint")}
    settings |= {"checkpoint_every_n_epochs": 0, "checkpoint_single_file": False, "checkpoints_total_limit": 1}
    if not has_limits(config):
        settings |= {"limit_mean": LIMIT_MEAN, "limit_worst": LIMIT_WORST}
    return config.model_copy(update=settings)


def _combinations(tuning: TuneConfig) -> Iterator[tuple[float, float | None]]:
    for ratio in sorted(set(tuning.ratios)):
        weights = sorted(set(tuning.prior_prediction_weights)) if ratio else []
        yield from ((ratio, weight) for weight in (None, *weights))


def _settings(config: TrainConfig, ratio: float, weight: float | None, others: int, share: float) -> dict[str, Any]:
    """Returns in what a probe differs from the run: its ratio, its objective and its length."""
    steps = max(1, round(others * share * (1 + ratio) / _step_images(config)))
    settings: dict[str, Any] = {"ground_truth_ratio": ratio, "max_train_steps": steps}
    settings["lr_warmup_images"] = round(config.lr_warmup_images * share)
    if weight is not None:
        settings |= {"prior_prediction": 1.0, "prior_prediction_weight": weight}
    return settings


def _step_images(config: TrainConfig) -> int:
    return config.batch_size * config.gradient_accumulation_steps
