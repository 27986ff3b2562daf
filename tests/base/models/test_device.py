"""A device is named in one way in all stages, and one that is not there is said in a sentence."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from dreamloom.base.cpu import has_bf16
from dreamloom.base.errors import UserError
from dreamloom.base.models.device import choose_precision, find_device, prepare_device
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


@pytest.mark.parametrize("is_native", [True, False])
def test_auto_takes_bf16_where_the_gpu_does_not_merely_emulate_it(
    is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_on_a_t4(including_emulation: bool = True) -> bool:
        return is_native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", as_on_a_t4)
    expected = torch.bfloat16 if is_native else torch.float32
    assert choose_precision("auto", "cuda") == choose_precision("auto", "cuda", bf16_on_cpu=True) == expected
    assert choose_precision("bf16", "cuda") == torch.bfloat16
    assert choose_precision("fp16", "cuda") == torch.float16


def test_auto_is_fp32_on_a_processor_but_where_bf16_gains() -> None:
    assert choose_precision("auto", "cpu") == choose_precision("fp32", "cpu", bf16_on_cpu=True) == torch.float32
    assert (choose_precision("auto", "cpu", bf16_on_cpu=True) == torch.bfloat16) == has_bf16()
    assert choose_precision("auto", torch.device("mps"), bf16_on_cpu=True) == torch.float32


def test_no_stage_asks_by_itself_what_a_gpu_can() -> None:
    house = Path(__file__).parents[3]
    rooms = ("base", "scrape", "caption", "curate", "train", "flows", "demo")
    files = [file for room in rooms for file in (house / room).rglob("*.py")]
    asking = [str(file.relative_to(house)) for file in files if "is_bf16_supported" in file.read_text(encoding="utf-8")]
    assert asking == ["base/models/device.py"]
