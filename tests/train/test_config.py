"""No dead flags: each field of each config is read somewhere."""

import ast
from pathlib import Path

import pytest
from pydantic import BaseModel

from dreamloom.base.stage import recipe_fields
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.config import EvaluateConfig
from dreamloom.train.export.config import ExportConfig

READ = {
    node.attr
    for file in (Path(__file__).parents[2] / "train").rglob("*.py")
    for node in ast.walk(ast.parse(file.read_text()))
    if isinstance(node, ast.Attribute)
}


@pytest.mark.parametrize("config", [TrainConfig, EvaluateConfig, ExportConfig])
def test_every_field_is_read_and_described(config: type[BaseModel]) -> None:
    assert set(config.model_fields) <= READ
    assert all(field.description for field in config.model_fields.values())


def test_what_changes_no_weights_is_no_part_of_the_recipe() -> None:
    assert {"resolution", "seed", "learning_rate"} <= recipe_fields(TrainConfig)
    assert not {"num_workers", "device", "preset"} & recipe_fields(TrainConfig)
