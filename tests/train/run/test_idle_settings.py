"""Settings that a run would not heed are told."""

from typing import Any

import pytest

from dreamloom.train.config import TrainConfig
from dreamloom.train.run.idle_settings import idle_notes


@pytest.mark.parametrize(
    ("idle", "needed", "said"),
    [
        ({"ema_warmup": "ramp"}, {"ema_half_life_images": 10}, "ema_half_life_images"),
        ({"crops_per_image": 8}, {"crop_jitter": 0.1}, "crop_jitter"),
        (
            {"lr_scheduler_num_cycles": 3},
            {"text_encoder_lr_scheduler": "cosine_with_restarts"},
            "lr_scheduler cosine_with_restarts",
        ),
        (
            {"lr_scheduler_power": 2, "lr_scheduler": "cosine"},
            {"lr_scheduler": "polynomial"},
            "lr_scheduler polynomial",
        ),
        (
            {"text_encoder_weight_decay": 0.1, "text_encoder_learning_rate": 0},
            {"text_encoder_learning_rate": 1e-6},
            "text_encoder_learning_rate above 0",
        ),
        ({"prior_prediction_weight": 0.5}, {"prior_prediction": 0.5}, "prior_prediction"),
        ({"embedding_vectors": 2}, {"embeddings": ["zorp=a"]}, "embeddings"),
    ],
)
def test_a_setting_whose_other_is_off_is_told(idle: dict[str, Any], needed: dict[str, Any], said: str) -> None:
    (note,) = idle_notes(TrainConfig(**idle), 100)
    assert note == f"{next(iter(idle))} is set and changes nothing: it needs {said}."
    assert not idle_notes(TrainConfig(**{**idle, **needed}), 100)


def test_a_warm_up_that_the_run_does_not_reach_is_told() -> None:
    config = TrainConfig(lr_warmup_images=1000)
    assert idle_notes(config, 1000) == []
    assert "they reach 17 % of what is set" in idle_notes(config, 168)[0]


@pytest.mark.parametrize("preset", [None, "8gb", "24gb"])
def test_no_preset_sets_what_it_does_not_use(preset: str | None) -> None:
    assert idle_notes(TrainConfig(preset=preset), 1) == []
