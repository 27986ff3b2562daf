"""That it learns at all: weights and adapters, in float32 and in bfloat16, on images that were held out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.loop import train

pytestmark = pytest.mark.slow

Config = Callable[..., TrainConfig]


@pytest.fixture
def learned(
    tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> Callable[[str, dict[str, Any]], float]:
    """`learned(name, changes)`: of a short run."""

    def run(name: str, changes: dict[str, Any]) -> float:
        settings = config(
            **{"base": tiny_base, "epochs": 6, "checkpoint_every_n_steps": 100, "log_every_n_steps": 100, **changes}
        )
        summary = train(folder, tmp_path / name, settings, heldout)
        assert summary.finished and summary.learned is not None
        return summary.learned

    return run


def test_bf16_learns_what_fp32_learns(learned: Callable[[str, dict[str, Any]], float]) -> None:
    full = learned("fp32", {"precision": "fp32"})
    assert full > 0.1
    assert learned("bf16", {"precision": "bf16"}) == pytest.approx(full, rel=0.05)
    assert learned("weights", {"weight_dtype": "bf16"}) == pytest.approx(full, rel=0.05)


def test_adapters_learn(learned: Callable[[str, dict[str, Any]], float]) -> None:
    assert learned("lora", {"lora_rank": 4, "learning_rate": 2e-2, "text_encoder_learning_rate": 2e-2}) > 0.05
