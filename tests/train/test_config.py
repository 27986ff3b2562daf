"""The configs of train: described, in groups, without dead fields, and with the choices that the code has."""

import ast
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from dreamloom.base.stage import group_of, recipe_fields
from dreamloom.train.config import PRESETS, DreamBoothConfig, TrainConfig, shared_settings
from dreamloom.train.evaluate.config import EvaluateConfig, as_trained
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.writers import DTYPES
from dreamloom.train.objectives.losses import LOSSES
from dreamloom.train.objectives.weightings import WEIGHTINGS
from dreamloom.train.optimizers import OPTIMIZERS
from dreamloom.train.optimizers.lr_schedulers import LR_SCHEDULERS
from dreamloom.train.samplers import SAMPLERS

CONFIGS = [TrainConfig, EvaluateConfig, ExportConfig, DreamBoothConfig]
READ = {
    node.attr
    for file in (Path(__file__).parents[2] / "train").rglob("*.py")
    for node in ast.walk(ast.parse(file.read_text()))
    if isinstance(node, ast.Attribute)
}


def choices(config: type[BaseModel], field: str) -> set[str]:
    """The strings of a Literal, also of one that may be None."""
    annotation = config.model_fields[field].annotation
    arguments = [(argument, *get_args(argument)) for argument in get_args(annotation)]
    return {argument for nested in arguments for argument in nested if isinstance(argument, str)}


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_is_read_and_described(config: type[BaseModel]) -> None:
    assert set(config.model_fields) <= READ
    assert all(field.description for field in config.model_fields.values())


@pytest.mark.parametrize("config", CONFIGS)
def test_the_fields_of_a_group_stand_together(config: type[BaseModel]) -> None:
    groups = [group for group, _ in groupby(config.model_fields.values(), key=group_of)]
    assert None not in groups and len(groups) == len(set(groups))


def test_what_changes_no_weights_is_no_part_of_the_recipe() -> None:
    assert {"resolution", "seed", "learning_rate"} <= recipe_fields(TrainConfig)
    assert not {"num_workers", "device", "preset"} & recipe_fields(TrainConfig)


@pytest.mark.parametrize(
    ("config", "field", "registry"),
    [
        (TrainConfig, "optimizer", OPTIMIZERS),
        (TrainConfig, "lr_scheduler", LR_SCHEDULERS),
        (TrainConfig, "preset", PRESETS),
        (TrainConfig, "loss_type", LOSSES),
        (TrainConfig, "sample_scheduler", SAMPLERS),
        (ExportConfig, "dtype", DTYPES),
    ],
)
def test_the_choices_are_those_of_the_registry(
    config: type[BaseModel], field: str, registry: Mapping[str, Any]
) -> None:
    assert choices(config, field) == set(registry)


def test_registries_name_fields_and_choices() -> None:
    assert set(WEIGHTINGS) <= recipe_fields(TrainConfig)
    assert all(set(preset) <= set(TrainConfig.model_fields) for preset in PRESETS.values())


def test_an_evaluation_shares_the_settings_of_training() -> None:
    train = TrainConfig(resolution=256, eval_timesteps=4, seed=3, batch_size=8, pad_color="#ffffff")
    assert shared_settings(train, EvaluateConfig).items() <= as_trained(train).model_dump().items()
    given = EvaluateConfig(eval_timesteps=16, seed=0, use_ema=False)
    config = as_trained(train, given)
    assert (config.eval_timesteps, config.seed, config.use_ema) == (16, 0, False), "what is given wins"
    assert (config.resolution, config.batch_size, config.pad_color) == (256, 8, "#ffffff")
    assert as_trained(None, given) == given, "a model that is of no run"
