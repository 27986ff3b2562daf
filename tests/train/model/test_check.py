"""What is wrong with a model or a config is said in a sentence, before torch is loaded."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.check import check_models

Config = Callable[..., TrainConfig]


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture
def model(tiny_base: str, tmp_path: Path) -> Path:
    """A copy of the tiny model's JSON files."""
    weights = shutil.ignore_patterns("*.safetensors")
    return Path(shutil.copytree(tiny_base, tmp_path / "model", ignore=weights))


def test_a_model_that_fits_passes(model: Path, config: Config) -> None:
    check_models(config(base=str(model)))


def test_what_is_no_model_is_refused(model: Path, tmp_path: Path, config: Config) -> None:
    (tmp_path / "file.safetensors").touch()
    (tmp_path / "empty").mkdir()
    for base, message in [
        (tmp_path / "missing", "neither a folder nor a hub id"),
        ("owner/never-downloaded", "on this machine"),  # the tests run offline
        (tmp_path / "file.safetensors", "not a safetensors file"),
        (tmp_path / "empty", "lacks unet, vae"),
    ]:
        with pytest.raises(UserError, match=message):
            check_models(config(base=str(base)))
    shutil.rmtree(model / "vae")
    with pytest.raises(UserError, match="lacks vae"):
        check_models(config(base=str(model)))


def test_sdxl_is_refused(model: Path, config: Config) -> None:
    edit(model / "model_index.json", text_encoder_2=["transformers", "CLIPTextModelWithProjection"])
    with pytest.raises(UserError, match="two text encoders"):
        check_models(config(base=str(model)))


def test_a_broken_file_is_named(model: Path, config: Config) -> None:
    (model / "unet" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"unet/config\.json"):
        check_models(config(base=str(model)))


def test_a_vae_must_be_one_and_fit(model: Path, config: Config) -> None:
    with pytest.raises(UserError, match="not a VAE"):
        check_models(config(base=str(model), vae=str(model / "unet")))
    edit(model / "vae" / "config.json", latent_channels=16)
    with pytest.raises(UserError, match="16"):
        check_models(config(base=str(model)))
    edit(model / "vae" / "config.json", latent_channels=4, block_out_channels=[8] * 6)
    with pytest.raises(UserError, match="bucket_reso_steps is 8"):
        check_models(config(base=str(model)))


def test_zero_terminal_snr_needs_v_prediction(model: Path, config: Config) -> None:
    with pytest.raises(UserError, match="v_prediction"):
        check_models(config(base=str(model), zero_terminal_snr=True, min_snr_gamma=None))
    edit(model / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    check_models(config(base=str(model), zero_terminal_snr=True, min_snr_gamma=None))


def test_timesteps_must_lie_in_the_schedule(model: Path, config: Config) -> None:
    check_models(config(base=str(model), max_timestep=999))
    with pytest.raises(UserError, match="0 to 999"):
        check_models(config(base=str(model), max_timestep=1000))


@pytest.mark.parametrize(
    "changes",
    [
        {"resolution": 500},
        {"batch_size": 0},
        {"flips": 0.5},
        {"pad_color": "white"},
        {"pad_color": "#ffffff", "crop_jitter": 0.02},
        {"zero_terminal_snr": True, "prediction_type": "epsilon", "min_snr_gamma": None},
        {"zero_terminal_snr": True, "prediction_type": "v_prediction", "min_snr_gamma": 5},
        {
            "zero_terminal_snr": True,
            "prediction_type": "v_prediction",
            "min_snr_gamma": None,
            "debiased_estimation_loss": True,
        },
        {"debiased_estimation_loss": True, "min_snr_gamma": 5},
        {"min_timestep": 500, "max_timestep": 499},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(**changes)


@pytest.mark.parametrize(
    "changes", [{"debiased_estimation_loss": True}, {"zero_terminal_snr": True, "prediction_type": "v_prediction"}]
)
def test_what_weighs_otherwise_takes_the_place_of_min_snr(changes: dict[str, Any]) -> None:
    assert TrainConfig(**changes).min_snr_gamma is None
    assert TrainConfig().min_snr_gamma == 5
    assert TrainConfig.model_validate({"min_snr_gamma": None}).min_snr_gamma is None


def test_configs_and_checks_need_no_torch() -> None:
    code = (
        "import sys, dreamloom.train.loop.loop, dreamloom.train.evaluate.evaluate\n"
        "import dreamloom.train.export.export, dreamloom.train.plan, dreamloom.train.model.check\n"
        "heavy = ('torch', 'diffusers', 'transformers', 'matplotlib', 'cv2', 'safetensors', 'prefect', 'open_clip')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    house = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=house)
    assert done.stdout.strip() == "[]"
