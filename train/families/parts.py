"""Reads the parts of a model from a diffusers folder, a single file or the hub, on the CPU and in float32."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from dreamloom.base.errors import UserError
from dreamloom.base.models.hub import check_on_hub
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
from dreamloom.train.model.family import Family
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


def load_parts(base: str, vae: str | None) -> Parts:
    """Loads the parts of a model from a file, a folder or the hub.

    Args:
        base: the folder, file or hub id.
        vae: a VAE in place of the base's.

    Raises:
        UserError: they can't be read.
    """
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
