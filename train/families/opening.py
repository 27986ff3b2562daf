"""Opens a model from a diffusers folder, a single file or the hub: all its components, in float32 and frozen."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from dreamloom.base.errors import UserError
from dreamloom.base.text import brief
from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion import formulas
from dreamloom.train.diffusion.schedules import DiscreteSchedule, NoiseSchedule, RectifiedFlow
from dreamloom.train.families.check import check_scheduler, check_zero_terminal_snr, resolve_prediction_type
from dreamloom.train.families.files import (
    diffusers_folder_of,
    family_of_file,
    family_of_folder,
    fetch_configs,
    find_family,
    find_folder,
    read_component_config,
    read_model_json,
)
from dreamloom.train.families.original_keys import NoOriginalKeyError
from dreamloom.train.model.checkpoint_file import read_state_dict
from dreamloom.train.model.embeddings import add_embeddings
from dreamloom.train.model.family import Family
from dreamloom.train.model.model import Model
from dreamloom.train.model.names import check_on_hub
from dreamloom.train.model.weight_files import weight_variant


@dataclass(frozen=True)
class Parts:
    """The parts of a model, on the CPU, in float32."""

    family: Family
    components: dict[str, Any]
    """The networks, by the names of their folders; without a VAE where a file holds none."""
    tokenizers: dict[str, Any]
    """By text encoder."""
    scheduler: dict[str, Any]
    """The config of the scheduler; prediction_type is None where nothing says it."""
    settings: Mapping[str, Any]
    """See Family.kept_settings."""


def load_base_model(
    config: TrainConfig, base: str, device: torch.device, vae: str | None = None, at_rest: bool = False
) -> Model:
    """Loads a base model with a run's VAE, prediction type, noise schedule, way of reading captions and new words.

    Args:
        config: the run's.
        base: the model's folder, file or hub id.
        device: where to put the components.
        vae: a VAE in place of the run's.
        at_rest: see `load_model`.

    Raises:
        UserError: the model can't be loaded, or knows a new word already.
    """
    how = (vae or config.vae, config.prediction_type, config.zero_terminal_snr, config.clip_skip, config.t5_length)
    model = load_model(base, device, *how, at_rest)
    if config.vae_tiling:
        model.vae.enable_tiling()
    add_embeddings(model, config)
    return model


def load_model(
    base: str,
    device: torch.device,
    vae: str | None = None,
    prediction_type: str = "auto",
    zero_terminal_snr: bool = False,
    clip_skip: int = 1,
    t5_length: int = 256,
    at_rest: bool = False,
) -> Model:
    """Loads a model.

    Args:
        base: the folder, file or hub id.
        device: where to put the components.
        vae: a VAE in place of the base's.
        prediction_type: auto, epsilon or v_prediction.
        zero_terminal_snr: whether to rescale the noise schedule to zero terminal SNR; the base's own is kept.
        clip_skip: which of the text encoder's layers the denoiser sees, from the last.
        t5_length: tokens that T5 reads, where there is one.
        at_rest: whether the VAE alone is put there now, the denoiser by Model.settle, and a text encoder while it
            answers: in float32, they may be too much at once.

    Raises:
        UserError: the model can't be loaded.
    """
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()  # both warn of what no user can mend
    try:
        parts = _load_parts(base, vae)
        zero_terminal_snr = zero_terminal_snr or bool(parts.scheduler.get("rescale_betas_zero_snr"))
        scheduler = _make_scheduler(base, parts, prediction_type, zero_terminal_snr)
        schedule = make_schedule(parts.family, scheduler, zero_terminal_snr).to(device)
        places = {name: torch.device("cpu") if at_rest and name != "vae" else device for name in parts.components}
        components = {name: _prepare(module, places[name]) for name, module in parts.components.items()}
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = brief(error, 300)
        raise UserError(f"The model {base} can't be loaded ({reason}); check the name, or copy it again.") from error
    for name in parts.tokenizers:
        if clip_skip > (layers := components[name].config.num_hidden_layers):
            raise UserError(f"clip_skip is {clip_skip}, but the text encoder of {base} has {layers} layers; lower it.")
    open_model = parts.family.model_class()
    model: Model = open_model(
        parts.family, components, parts.tokenizers, scheduler, schedule, clip_skip, t5_length, settings=parts.settings
    )
    model.resting = set(model.text_encoders) if at_rest else set()
    return model


def make_schedule(family: Family, scheduler: Any, zero_terminal_snr: bool = False) -> NoiseSchedule:
    """Makes the noise schedule that a base was trained with, of its scheduler, which may draw with another.

    Args:
        family: the base's.
        scheduler: diffusers'.
        zero_terminal_snr: whether to rescale it to zero terminal SNR.
    """
    import diffusers

    if family.is_flow:
        return RectifiedFlow(float(scheduler.config.get("shift") or 1.0), torch.zeros(1))
    config = {**scheduler.config, "rescale_betas_zero_snr": False}
    alphas_cumprod = torch.as_tensor(diffusers.DDPMScheduler.from_config(config).alphas_cumprod).float()
    if zero_terminal_snr:
        alphas_cumprod = formulas.rescale_zero_terminal_snr(alphas_cumprod)
    return DiscreteSchedule(str(scheduler.config.prediction_type), alphas_cumprod)


def make_network(family: Family, component: str, config: Mapping[str, Any]) -> Any:
    """Makes a component of its config, with random weights."""
    library, _, class_name = family.classes[component].partition(".")
    made = getattr(import_module(library), class_name)
    if library == "transformers":
        return made(made.config_class.from_dict(config))
    return made.from_config(config)


def load_checkpoint_file(file: Path) -> Parts:
    """Loads the parts of a model from a single file.

    Raises:
        UserError: the file is damaged, or of no family.
    """
    import accelerate

    weights = read_state_dict(file)
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    folder = diffusers_folder_of(file)
    family = (family_of_folder(folder) if folder else None) or family_of_file(file, shapes)
    configs = {
        name: read_component_config(file, name) or family.file_config(file, shapes, name)
        for name in (family.denoiser, "vae", *family.text_encoders, "scheduler")
    }
    held = [part for part, prefix in family.file_prefixes.items() if any(name.startswith(prefix) for name in weights)]
    networks = [part for part in family.file_prefixes if part in held or part not in (*family.optional, "vae")]
    with accelerate.init_empty_weights(include_buffers=False):
        made = {name: make_network(family, name, configs[name]) for name in networks if configs[name]}
    try:
        state_dicts = family.read_file_weights(weights, {name: each.state_dict() for name, each in made.items()})
    except (KeyError, RuntimeError, NoOriginalKeyError) as error:
        raise UserError(f"{file} lacks {error}; copy it again, or name another model.") from error
    for name, module in made.items():
        float32 = {key: value.float().contiguous() for key, value in state_dicts[name].items()}
        module.load_state_dict(float32, assign=True)
    tokenizers = _load_tokenizers(family, str(folder), list(made)) if folder else family.file_tokenizers(configs)
    return Parts(family, made, tokenizers, configs["scheduler"], _settings(family, folder))


def _load_parts(base: str, vae: str | None) -> Parts:
    """Loads a model's parts from a file, a folder or the hub."""
    path = Path(base).expanduser()
    if path.is_file():
        parts = load_checkpoint_file(path)
        if "vae" not in parts.components and vae is None:
            raise UserError(f"{base} holds no VAE; set vae to one.")
    else:
        check_on_hub(base)
        parts = _load_folder(_path_or_id(base), with_vae=vae is None)
    if vae is not None:
        parts.components["vae"] = _load_vae(vae)
    return parts


def _load_folder(name: str, with_vae: bool) -> Parts:
    import diffusers

    family = _family_of(name)
    index = diffusers.DiffusionPipeline.load_config(name)
    parts = (family.denoiser, *family.text_encoders)
    networks = [part for part in parts if part not in family.optional or (index.get(part) or [None])[0]]
    components = {each: _load_network(family, each, name) for each in networks}
    if with_vae:
        components["vae"] = _load_vae(name, "vae")
    scheduler = diffusers.DDPMScheduler.load_config(name, subfolder="scheduler")
    return Parts(
        family, components, _load_tokenizers(family, name, networks), scheduler, _settings(family, find_folder(name))
    )


def _settings(family: Family, folder: Path | None) -> dict[str, Any]:
    index = read_model_json(str(folder), "model_index.json") if folder else {}
    return {name: index.get(name, value) for name, value in family.kept_settings.items()}


def _family_of(name: str) -> Family:
    """Finds out of which family a folder or a model of the hub is."""
    fetch_configs(name)
    family = find_family(name)
    if family is None:
        raise UserError(f"{name} is not a model that is trained here; name another.")
    return family


def _load_network(family: Family, component: str, name: str) -> Any:
    library, _, class_name = family.classes[component].partition(".")
    dtype = {"dtype" if library == "transformers" else "torch_dtype": torch.float32}
    # loads half-precision files as float32: training needs the precision
    return _load_whole(getattr(import_module(library), class_name), name, component, dtype)


def _load_whole(network: Any, name: str, component: str, dtype: Mapping[str, torch.dtype]) -> Any:
    """Loads a network; libraries fill what its file lacks with random weights, which no training would make good."""
    module, found = network.from_pretrained(name, **_weights(name, component), **dtype, output_loading_info=True)
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{Path(name) / component} lacks the weights {missing[0]}{more}; copy the model again.")
    return module


def _load_tokenizers(family: Family, name: str, components: Collection[str]) -> dict[str, Any]:
    """Loads the tokenizer of each text encoder that is there: that of text_encoder_2 is called tokenizer_2."""
    tokenizers = {}
    for encoder in (each for each in family.text_encoders if each in components):
        folder = encoder.replace("text_encoder", "tokenizer")
        library, _, class_name = family.classes[folder].partition(".")
        tokenizers[encoder] = getattr(import_module(library), class_name).from_pretrained(name, subfolder=folder)
    return tokenizers


def _load_vae(name: str, subfolder: str = "") -> Any:
    import diffusers

    check_on_hub(name)
    path = _path_or_id(name)
    inside = {"subfolder": subfolder} if subfolder else {}
    class_name = diffusers.AutoencoderKL.load_config(path, **inside)["_class_name"]
    return _load_whole(getattr(diffusers, class_name), path, subfolder, {"torch_dtype": torch.float32})


def _weights(name: str, subfolder: str) -> dict[str, str]:
    """Returns the arguments that find a component's weights, of whatever variant there is in a folder."""
    found = {"subfolder": subfolder, "variant": weight_variant(Path(name) / subfolder)}
    return {key: value for key, value in found.items() if value}


def _path_or_id(name: str) -> str:
    path = Path(name).expanduser()
    return str(path) if path.exists() else name


def _make_scheduler(base: str, parts: Parts, prediction: str, zero_terminal_snr: bool) -> Any:
    """Makes the base's own scheduler, with the trained model's prediction type and terminal SNR."""
    import diffusers

    config = parts.scheduler
    name = str(config.get("_class_name"))
    scheduler_class = getattr(diffusers, name, None)
    if not name.endswith("Scheduler") or scheduler_class is None:
        raise UserError(f"The scheduler of {base} is {name}, which diffusers does not know; copy the model again.")
    check_scheduler(base, parts.family, config)
    if parts.family.is_flow:
        return scheduler_class.from_config(config)
    changes: dict[str, Any] = {"prediction_type": resolve_prediction_type(prediction, config)}
    check_zero_terminal_snr(base, changes["prediction_type"], zero_terminal_snr)
    if zero_terminal_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if zero_terminal_snr and "rescale_betas_zero_snr" not in scheduler_class().config:
        scheduler_class = diffusers.DDIMScheduler  # many schedulers can't start from pure noise; this one can
    return scheduler_class.from_config({**config, **changes})


def _prepare(module: Any, device: torch.device) -> Any:
    """Freezes a network and moves it to its device, channels_last: faster on GPUs, and not slower on CPUs."""
    module.requires_grad_(False)
    module.eval()  # no dropout: it would be randomness with a state
    module.to(device=device, memory_format=torch.channels_last)
    for parameter in module.parameters():  # what is mapped from a file lies unaligned, which changes the rounding
        parameter.data = parameter.data.clone()
    return module
