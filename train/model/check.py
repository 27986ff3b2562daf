"""What can be known of a model before torch is loaded: is it there, is it Stable Diffusion, does it fit the config."""

import json
import os
import re
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.sd_configs import SINGLE_FILE_SUFFIXES, read_component_config

COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_models(config: TrainConfig) -> None:
    """Checks that the models a config names are there and fit it; reads only their small JSON files.

    Of a model on the hub that is not on this machine yet, nothing can be said.

    Raises:
        UserError: a model is not there, is not Stable Diffusion 1.x or 2.x, or doesn't fit the config.
    """
    check_base_model(config.base)
    if config.sample_prompts_file is not None and not config.sample_prompts_file.expanduser().is_file():
        raise UserError(
            f"sample_prompts_file {config.sample_prompts_file} is not there; make it, with a prompt a line."
        )
    vae = read_vae_config(config.base, config.vae)
    unet = read_model_json(config.base, "unet", "config.json")
    if vae and unet and unet.get("in_channels") != vae.get("latent_channels"):
        raise UserError(
            f"The VAE {config.vae or config.base} makes {vae.get('latent_channels')} channels, and the UNet of "
            f"{config.base} takes {unet.get('in_channels')}; name a VAE that fits."
        )
    if vae and config.bucket_reso_steps % vae_scale_factor(vae):
        raise UserError(
            f"bucket_reso_steps is {config.bucket_reso_steps}, but this VAE shrinks images {vae_scale_factor(vae)} "
            "times; make it a multiple."
        )
    scheduler = read_model_json(config.base, "scheduler", "scheduler_config.json")
    if resolve_prediction_type(config.prediction_type, scheduler) == "epsilon" and config.zero_terminal_snr:
        raise UserError(
            f"zero_terminal_snr needs v_prediction, and {config.base} predicts epsilon; set prediction_type."
        )
    steps = int(scheduler.get("num_train_timesteps", 1000))
    if max(config.min_timestep, config.max_timestep or 0) >= steps:
        raise UserError(f"The timesteps of {config.base} are 0 to {steps - 1}; lower min_timestep or max_timestep.")


def check_base_model(name: str) -> None:
    """Checks that `name` is a diffusers folder of Stable Diffusion 1.x or 2.x, or may be a hub id.

    Raises:
        UserError: it is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix not in SINGLE_FILE_SUFFIXES:
            raise UserError(f"{name} is no model: a diffusers folder, a .safetensors or .ckpt, or a hub id is needed.")
        read_component_config(path, "unet")
        return
    if not path.exists():
        if not _HUB_ID.fullmatch(name):
            raise UserError(f"There is no model {name}: it is neither a folder nor a hub id such as owner/name.")
        if _offline() and not _on_this_machine(name):
            raise UserError(f"There is no folder {name}, and no hub model of that name on this machine; name another.")
        return
    index = read_model_json(name, "model_index.json")
    missing = [part for part in COMPONENTS if part not in index or not (path / part).is_dir()]
    if missing:
        raise UserError(f"{name} is no Stable Diffusion model in diffusers' format: it lacks {', '.join(missing)}.")
    if "text_encoder_2" in index:
        raise UserError(f"{name} has two text encoders, as SDXL has; name a Stable Diffusion 1.x or 2.x model.")


def read_vae_config(base: str, vae: str | None) -> dict[str, Any]:
    """The config of the VAE to be used; empty where it is on the hub.

    Raises:
        UserError: `vae` is a folder, but not of a VAE that can be used.
    """
    if vae is None:
        return read_model_json(base, "vae", "config.json")
    if not Path(vae).expanduser().exists() and _HUB_ID.fullmatch(vae):
        return {}
    config = read_model_json(vae, "config.json")
    if config.get("_class_name") not in ("AutoencoderKL", "AutoencoderTiny"):
        raise UserError(f"{vae} is no VAE: a diffusers folder of an AutoencoderKL or AutoencoderTiny is needed.")
    return config


def vae_scale_factor(vae: dict[str, Any]) -> int:
    """How many times a VAE shrinks each side of an image."""
    blocks = vae.get("encoder_block_out_channels") or vae.get("block_out_channels") or [0]
    return int(2 ** (len(blocks) - 1))


def resolve_prediction_type(name: str, scheduler: dict[str, Any]) -> str:
    """What the UNet predicts: as the config wants it, or as the base's scheduler says.

    Raises:
        UserError: neither says it.
    """
    if name != "auto":
        return name
    found = scheduler.get("prediction_type", "epsilon")
    if found is None:
        raise UserError(
            "A file of Stable Diffusion 2 does not say what it predicts: those of 768 pixels predict v, those of 512 "
            "epsilon; set prediction_type."
        )
    return str(found)


def read_model_json(model: str, *inside: str) -> dict[str, Any]:
    """A JSON file of a model's folder; empty where it isn't there."""
    path = Path(model).expanduser()
    if path.is_file():
        return read_component_config(path, inside[0])
    file = path.joinpath(*inside)
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} can't be read ({error}); copy the model again.") from error
    return dict(found)


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _on_this_machine(name: str) -> bool:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return (hub / f"models--{name.replace('/', '--')}").is_dir()
