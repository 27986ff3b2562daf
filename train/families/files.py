"""Reads what a model's files say of themselves, without opening the model: of a diffusers folder or a single file."""

from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.models.hub import asking_hub, is_hub_id
from dreamloom.base.tables.documents import DocumentError, parse_json, read_text
from dreamloom.train.families.other_models import describe_file, find_quantized, is_told_guidance
from dreamloom.train.families.registry import FAMILIES
from dreamloom.train.model.family import Config, Family, Shapes
from dreamloom.train.model.safetensors_header import read_tensor_shapes

SINGLE_FILE_SUFFIXES = (".safetensors", ".ckpt")
"""Extensions of models in a single file."""


def find_family(base: str) -> Family | None:
    """Finds out of which family a model is; None where nothing here tells yet: a .ckpt, or one that is on the hub.

    Args:
        base: a diffusers folder, a single file or a hub id.

    Raises:
        UserError: its files can't be read, or are of no family.
    """
    path = Path(base).expanduser()
    if path.is_file() and diffusers_folder_of(path) is None:
        return family_of_file(path, read_tensor_shapes(path)) if path.suffix == ".safetensors" else None
    folder = path.parent if path.is_file() else find_folder(base)
    return family_of_folder(folder) if folder else None


def family_of_file(file: Path, tensors: Shapes) -> Family:
    """Finds out of which family a single file is.

    Raises:
        UserError: it is of none, or quantized.
    """
    if quantized := find_quantized(tensors):
        raise UserError(
            f"{file} holds quantized weights ({quantized} is beside them); name the model in fp16, bf16 or fp32."
        )
    for family in FAMILIES.values():
        if family.owns_file(tensors) and not is_told_guidance(tensors):
            return family
    raise UserError(f"{file} {describe_file(tensors)}.")


def family_of_folder(folder: Path) -> Family | None:
    """Finds out of which family a diffusers folder is; None: of none.

    Raises:
        UserError: a JSON file of it is broken, or its weights are quantized.
    """
    index = _read_if_there(folder / "model_index.json")
    for family in FAMILIES.values():
        denoiser = _read_if_there(folder / family.denoiser / "config.json")
        if family.owns_folder(index, denoiser) and not denoiser.get("time_cond_proj_dim"):
            for part in family.file_prefixes:
                if "quantization_config" in _read_if_there(folder / part / "config.json"):
                    raise UserError(f"{folder / part} holds quantized weights; name the model in fp16, bf16 or fp32.")
            return family
    return None


def find_folder(base: str) -> Path | None:
    """Returns the diffusers folder of a model, be it a folder or downloaded from the hub; None where there is none."""
    path = Path(base).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        index = try_to_load_from_cache(base, "model_index.json")
    except HFValidationError:
        return None
    return Path(index).parent if isinstance(index, str) else None


def fetch_configs(base: str) -> None:
    """Downloads the configs of a model on the hub, a few KB that tell its family, unless they are on this machine.

    Raises:
        UserError: the hub has no such model; HubUnreachable: it does not answer.
    """
    if not is_hub_id(base) or find_folder(base) is not None:
        return
    from huggingface_hub import snapshot_download

    with asking_hub(base):
        snapshot_download(base, allow_patterns=["model_index.json", "*/*config.json"])


def diffusers_folder_of(file: Path) -> Path | None:
    """Returns the diffusers folder in which a file lies; None: it lies in none."""
    folder = file.parent
    denoisers = {family.denoiser for family in FAMILIES.values()}
    return folder if any((folder / name / "config.json").is_file() for name in denoisers) else None


def read_component_config(file: Path, component: str) -> Config:
    """Reads the config of a component of the model in a file; empty where only the opened file can tell.

    A file in a diffusers folder, as exports write it, has the configs of that folder's JSON files. For any other file
    the names and shapes of its tensors tell them.

    Args:
        file: a .safetensors or .ckpt.
        component: unet, vae, …, or scheduler.

    Raises:
        UserError: the file is of no family.
    """
    if folder := diffusers_folder_of(file):
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        return _read_if_there(folder / component / name)
    if file.suffix != ".safetensors":
        return {}
    return infer_component_config(file, read_tensor_shapes(file), component)


def infer_component_config(file: Path, tensors: Shapes, component: str) -> Config:
    """Infers the config of a component of a file outside a diffusers folder.

    Args:
        file: named in the error.
        tensors: the file's.
        component: unet, vae, …, or scheduler.

    Raises:
        UserError: the file is of no family.
    """
    return family_of_file(file, tensors).file_config(file, tensors, component)


def read_model_json(model: str, *inside: str) -> Config:
    """Reads a JSON file of a model's folder, or what a single file says in its place; empty where there is none.

    Args:
        model: a folder, a single file or a hub id.
        inside: the path of the JSON file inside the folder.

    Raises:
        UserError: the JSON is broken.
    """
    path = Path(model).expanduser()
    if path.is_file():
        return read_component_config(path, inside[0])
    return _read_if_there(path.joinpath(*inside))


def _read_if_there(file: Path) -> dict[str, Any]:
    """Reads a small JSON file of a model's folder; empty where there is none.

    Raises:
        UserError: it is broken, huge or no object.
    """
    if not file.is_file():
        return {}
    try:
        content = parse_json(read_text(file)[0])
        if not isinstance(content, dict):
            raise DocumentError("it is no object")
    except (OSError, DocumentError) as error:
        raise UserError(f"{file} can't be read ({error}); copy the model again.") from error
    return content
