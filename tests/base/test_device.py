"""A device is named in one way in all stages, and one that is not there is said in a sentence."""

import pytest
import torch
from pydantic import ValidationError

from dreamloom.base.device import find_device, prepare_device
from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig, recipe_values
from dreamloom.caption.config import CaptionConfig
from dreamloom.curate.config import ScoreConfig
from dreamloom.train.config import DreamBoothConfig, TrainConfig
from dreamloom.train.evaluate.config import EvaluateConfig

CONFIGS: list[type[StageConfig]] = [ScoreConfig, CaptionConfig, TrainConfig, EvaluateConfig, DreamBoothConfig]


@pytest.mark.parametrize("config", CONFIGS)
def test_device_means_the_same_in_every_stage(config: type[StageConfig]) -> None:
    assert len({other.model_fields["device"].description for other in CONFIGS}) == 1
    for name in ("auto", "cpu", "cuda", "cuda:1", "mps"):
        assert recipe_values(config.model_validate({"device": name})) == recipe_values(config())
    with pytest.raises(ValidationError, match="'gpu' is no device; valid: auto, cpu"):
        config.model_validate({"device": "gpu"})


def test_auto_is_a_gpu_if_there_is_one() -> None:
    assert prepare_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert prepare_device("cpu") == "cpu" and find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "mps:9"])
def test_a_device_that_is_not_there_is_said(name: str) -> None:
    with pytest.raises(UserError, match=f"There is no device '{name}' on this machine; set device to auto"):
        prepare_device(name)
