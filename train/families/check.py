"""Checks of a model before torch is loaded: it exists, it is of a family, and it fits the config."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.models.clip_config import ClipConfig, check_clip
from dreamloom.base.models.hub import HubUnreachable
from dreamloom.base.models.weights import check_weights
from dreamloom.base.stage import changed_fields
from dreamloom.base.text import brief
from dreamloom.train.adapter_kinds import KINDS
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.files import (
    SINGLE_FILE_SUFFIXES,
    family_of_folder,
    fetch_configs,
    find_family,
    read_model_json,
)
from dreamloom.train.families.other_models import describe_folder
from dreamloom.train.families.sd.family import SD
from dreamloom.train.model.family import Config, Family, trained_components
from dreamloom.train.model.frozen import find_frozen
from dreamloom.train.model.lora_file import check_init_lora
from dreamloom.train.model.lora_layers import adapted_layers, adapter_pattern, is_adapter
from dreamloom.train.model.names import check_name
from dreamloom.train.model.safetensors_header import read_tensor_shapes
from dreamloom.train.model.weight_files import check_component_weights, read_component_shapes

PREDICTION_TYPES = ("epsilon", "v_prediction")
"""What a model of a discrete noise schedule may predict."""
MAX_TIMESTEPS = 100_000
"""Most timesteps of a base's schedule, which has a table of them."""
_EDM = "EDM"
"""Beginning of the schedulers of EDM's noise (Karras et al. 2022, arXiv 2206.00364) in diffusers."""
_FLOWS = "FlowMatch"
"""Beginning of the schedulers of rectified flows in diffusers."""


def check_models(config: TrainConfig, may_download: bool = False) -> None:
    """Checks that the models of a config exist and fit it. Reads only their small JSON files.

    A model on the hub that was not downloaded yet is not checked.

    Args:
        config: the config.
        may_download: see dreamloom.train.model.names.check_name.

    Raises:
        UserError: a model does not exist, is of no family that is trained here, or does not fit the config.
    """
    check_base_model(config.base, may_download)
    family = find_family(config.base)
    if family is not None:
        _check_frozen(config, family)
        _check_adapters(config, family)
    if config.likeness_clip is not None:
        check_clip(ClipConfig(model=config.likeness_clip))
    check_init_lora(config)
    if config.sample_prompts_file is not None and not config.sample_prompts_file.expanduser().is_file():
        raise UserError(
            f"sample_prompts_file {config.sample_prompts_file} does not exist; create it, with one prompt per line."
        )
    vae = read_vae_config(config.base, config.vae, may_download)
    denoiser = read_model_json(config.base, family.denoiser, "config.json") if family else {}
    if family is not None:
        family.check(config, denoiser, vae)
    takes, gives = (denoiser.get(name) for name in ("in_channels", "out_channels"))
    if takes and gives and takes != gives:
        raise UserError(
            f"The denoiser of {config.base} takes {takes} channels and gives {gives}: it changes or fills in images; "
            "name a model for text to image."
        )
    if vae and denoiser and denoiser.get("in_channels") != vae.get("latent_channels"):
        raise UserError(
            f"The VAE {config.vae or config.base} has {vae.get('latent_channels')} latent channels, and the "
            f"denoiser of {config.base} takes {denoiser.get('in_channels')}; name a VAE that fits."
        )
    if config.vae is not None:
        _check_scale(config, read_vae_config(config.base, None), vae)
    if vae and config.bucket_reso_steps % (factor := vae_scale_factor(vae) * int(denoiser.get("patch_size") or 1)):
        raise UserError(
            f"bucket_reso_steps is {config.bucket_reso_steps}, but the model takes {factor} pixels for one; "
            f"set it to a multiple of {factor}."
        )
    scheduler = read_model_json(config.base, "scheduler", "scheduler_config.json")
    if scheduler and family is not None:  # else only the opened model can tell
        check_scheduler(config.base, family, scheduler)
        if not family.is_flow:
            prediction_type = resolve_prediction_type(config.prediction_type, scheduler)
            check_zero_terminal_snr(config.base, prediction_type, config.zero_terminal_snr)
    count = int(scheduler.get("num_train_timesteps", 1000))
    timesteps = {"min_timestep": config.min_timestep, "max_timestep": config.max_timestep or 0}
    if config.timestep_curriculum_power:
        timesteps["initial_min_timestep"] = config.initial_min_timestep
    if too_high := [name for name, timestep in timesteps.items() if timestep >= count]:
        raise UserError(f"The timesteps of {config.base} are 0 to {count - 1}; lower {' and '.join(too_high)}.")


def _check_scale(config: TrainConfig, base: Config, vae: Config) -> None:
    """Checks that a VAE in place of the base's has its scale: one of another family has other latents."""
    ours, theirs = vae.get("scaling_factor"), base.get("scaling_factor")
    if vae.get("_class_name") == "AutoencoderKL" and ours and theirs and ours != theirs:
        raise UserError(
            f"The VAE {config.vae} scales latents by {ours}, and that of {config.base} by {theirs}: it is of another "
            "family; name one that fits."
        )


def _check_adapters(config: TrainConfig, family: Family) -> None:
    """Checks what is said of adapters, now that the family's preset may have given them a rank."""
    names = ("lora_kind", "lora_alpha", "lora_convolutions", "base_bits", "base_on_cpu")
    given = changed_fields(config, names)
    if given and config.lora_rank is None:
        raise UserError(f"{given[0]} is for adapters, and all weights are trained; set lora_rank, or leave it out.")
    if config.lora_convolutions and not family.convolution_layers:
        raise UserError(f"{family.title} has no blocks of convolutions; leave lora_convolutions out.")


def _check_frozen(config: TrainConfig, family: Family) -> None:
    """Checks the patterns of `frozen` where a diffusers folder tells the names; else the opened model does."""
    names: list[str] = []
    for part in trained_components(config, family):
        found: Iterable[str] = read_component_shapes(config.base, part) if config.frozen else ()
        if config.lora_rank is not None:
            tensor, layers = next(iter(KINDS[config.lora_kind].tensors)), adapter_pattern(config, family, part)
            found = [f"{layer}.{tensor}" for layer in adapted_layers(layers, found)]
        names += [f"{part}.{name}" for name in found]
    if names and len(find_frozen(config.frozen, names)) == len(set(names)) and not config.embeddings:
        raise UserError("frozen leaves nothing to train; remove a pattern.")


def check_scheduler(base: str, family: Family, scheduler: Mapping[str, Any]) -> None:
    """Checks that a base's scheduler is for the noise of its family.

    Args:
        base: the model.
        family: the one that it is of.
        scheduler: the config of its scheduler.

    Raises:
        UserError: it is for a rectified flow, and the model is none; or the other way round. Or its numbers make no
            noise schedule.
    """
    name = str(scheduler.get("_class_name"))
    if name.startswith(_EDM):
        raise UserError(f"The scheduler of {base} is {name}, of a noise that is not trained here; name another base.")
    steps = scheduler.get("num_train_timesteps", 1000)
    betas = [] if family.is_flow else [scheduler.get(key, 0.01) for key in ("beta_start", "beta_end")]
    is_count = isinstance(steps, int) and 1 <= steps <= MAX_TIMESTEPS
    if not is_count or not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas):
        numbers = ", ".join(brief(number, 40) for number in (steps, *betas))
        raise UserError(
            f"The scheduler of {base} makes no noise schedule (num_train_timesteps and betas: {numbers}); copy the "
            "scheduler_config.json of its original."
        )
    if name.startswith(_FLOWS) == family.is_flow:
        return
    kind = "not for rectified flows" if family.is_flow else "for rectified flows"
    raise UserError(
        f"The scheduler of {base} is {name}, {kind}, and its model is of {family.title}; copy the "
        "scheduler_config.json of its original."
    )


def check_zero_terminal_snr(base: str, prediction_type: str, zero_terminal_snr: bool) -> None:
    """Checks that a model predicts v if its noise schedule ends in pure noise, from which epsilon can't be told.

    Raises:
        UserError: it predicts epsilon.
    """
    if zero_terminal_snr and prediction_type == "epsilon":
        raise UserError(f"zero_terminal_snr needs v_prediction, but {base} predicts epsilon; set prediction_type.")


def check_base_model(name: str, may_download: bool = False) -> None:
    """Checks that `name` is a model of a family: a diffusers folder, a single file, or a hub id.

    Args:
        name: the model.
        may_download: see dreamloom.train.model.names.check_name.

    Raises:
        UserError: it is none of these.
    """
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix not in SINGLE_FILE_SUFFIXES:
            raise UserError(f"{name} is not a model; name a diffusers folder, a .safetensors or .ckpt, or a hub id.")
        check_weights([path])
        find_family(name)
    elif path.is_dir():
        _check_folder(name, path)
    else:
        _check_on_hub(name, may_download)


def _check_on_hub(name: str, may_download: bool) -> None:
    """Checks the name of a model on the hub, and sees to it that its family is known where it is needed now."""
    check_name(name, may_download)
    if not may_download:
        with suppress(HubUnreachable):  # what opens the model says it
            fetch_configs(name)


def _check_folder(name: str, path: Path) -> None:
    index = read_model_json(name, "model_index.json")
    family = family_of_folder(path)
    if family is None and (what := describe_folder(index, read_model_json(name, "unet", "config.json"))):
        raise UserError(f"{name} {what}.")
    kind = family or SD
    wanted = [part for part in (*kind.classes, "scheduler") if part not in kind.optional]
    missing = [part for part in wanted if part not in index or not (path / part).is_dir()]
    if not index and (adapters := _find_adapters(path)):
        raise UserError(
            f"{name} holds a LoRA ({adapters}), which belongs beside a model; name its base, and the file as init_lora."
        )
    if missing:
        raise UserError(f"{name} is not a Stable Diffusion model in diffusers' format: it lacks {', '.join(missing)}.")
    there = [part for part in kind.optional if (index.get(part) or [None])[0]]
    if lacking := [part for part in there if not (path / part).is_dir()]:
        raise UserError(
            f"{name} lacks {', '.join(lacking)}, which its model_index.json names; copy the whole model, or write "
            f"[null, null] there for {' and '.join(kind.optional)}, to train without."
        )
    for part in kind.classes:
        check_component_weights(path / part)


def _find_adapters(folder: Path) -> str | None:
    """Returns the name of a LoRA file in a folder; None where there is none."""
    for file in sorted(folder.glob("*.safetensors")):
        if any(is_adapter(name) or ".lora_" in name or ".lora." in name for name in read_tensor_shapes(file)):
            return file.name
    return None


def read_vae_config(base: str, vae: str | None, may_download: bool = False) -> dict[str, Any]:
    """Reads the config of the VAE that will be used; empty where it is on the hub.

    Args:
        base: the base model.
        vae: a VAE in place of the base's.
        may_download: see dreamloom.train.model.names.check_name.

    Raises:
        UserError: `vae` is not a VAE that can be used.
    """
    if vae is None:
        return read_model_json(base, "vae", "config.json")
    if not Path(vae).expanduser().exists():
        check_name(vae, may_download)
        return {}
    config = read_model_json(vae, "config.json")
    if config.get("_class_name") not in ("AutoencoderKL", "AutoencoderTiny"):
        raise UserError(f"{vae} is not a VAE; name a diffusers folder of an AutoencoderKL or AutoencoderTiny.")
    check_component_weights(Path(vae).expanduser())
    return config


def vae_scale_factor(vae: dict[str, Any]) -> int:
    """Computes how many times a VAE with this config shrinks each side of an image."""
    blocks = vae.get("encoder_block_out_channels") or vae.get("block_out_channels") or [0]
    return int(2 ** (len(blocks) - 1))


def resolve_prediction_type(name: str, scheduler: dict[str, Any]) -> str:
    """Resolves "auto" to what the base's scheduler says that the UNet predicts; of a DDPM.

    Args:
        name: auto, epsilon or v_prediction.
        scheduler: the config of the base's scheduler.

    Raises:
        UserError: the scheduler does not say it, or says what is not trained here.
    """
    if name != "auto":
        return name
    prediction_type = scheduler.get("prediction_type", "epsilon")
    if prediction_type is None:
        raise UserError(
            "A single file of Stable Diffusion 2 does not say what it predicts; set prediction_type: v_prediction for "
            "models of 768 pixels, epsilon for those of 512, or put its original .yaml beside it."
        )
    if prediction_type not in PREDICTION_TYPES:
        raise UserError(
            f"The base's scheduler says that the model predicts {prediction_type!r}, and models of epsilon and "
            "v_prediction are trained here; name another base, or set prediction_type if its scheduler is wrong."
        )
    return str(prediction_type)
