"""Finds the weights of a component in its folder, whatever variant they were published as, and reads their shapes."""

import re
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.models.weights import check_weights
from dreamloom.base.tables.documents import DocumentError, parse_json, read_text
from dreamloom.train.model.safetensors_header import read_tensor_shapes

_MAX_INDEX_BYTES = 2**24
"""Of the file that says in which shard each tensor is; Stable Diffusion XL's is of 0.2 MB."""
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model|pytorch_model)(?:\.(\w+))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)"
)


def weight_variant(folder: Path) -> str | None:
    """Returns the variant to load a component's weights of, such as fp16; None where there are weights without one."""
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    variants = {match[1] for name in names if (match := _WEIGHTS.fullmatch(name))}
    if not variants or None in variants:
        return None
    return "fp16" if "fp16" in variants else min(variants)


def list_weights(folder: Path) -> list[Path]:
    """Returns the files of a component's weights, those of `weight_variant` alone."""
    variant = weight_variant(folder)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in files if (match := _WEIGHTS.fullmatch(file.name)) and match[1] == variant]


def list_safetensors(folder: Path) -> list[Path]:
    """Returns the safetensors files among `list_weights`."""
    return [file for file in list_weights(folder) if file.suffix == ".safetensors"]


def check_component_weights(folder: Path) -> None:
    """Checks the files that a component is loaded from: its safetensors, else the others. Reads only headers.

    Raises:
        UserError: one is no file of weights, or not all of it is there; or files that an index names are not there.
    """
    files = list_safetensors(folder) or list_weights(folder)
    check_weights(files)
    for index in (file for file in sorted(folder.glob("*.index*.json")) if _is_of(index=file, files=files)):
        if lacking := sorted(name for name in _named_in(index) if not (folder / name).is_file()):
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise UserError(f"{folder} lacks {lacking[0]}{more}, which {index.name} names; copy the model again.")


def _is_of(index: Path, files: list[Path]) -> bool:
    """Tells whether an index lists the shards that are loaded, not those of another variant or format."""
    return any(file.suffix == f".{index.name.split('.')[1]}" and file.name in _named_in(index) for file in files)


def _named_in(index: Path) -> set[str]:
    try:
        content = parse_json(read_text(index, _MAX_INDEX_BYTES)[0])
    except (OSError, DocumentError) as error:
        raise UserError(f"{index} can't be read ({error}); copy the model again.") from error
    names = content.get("weight_map") if isinstance(content, dict) else None
    return set(map(str, names.values())) if isinstance(names, dict) else set()


def read_component_shapes(base: str, part: str) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of a component's weights in a diffusers folder, by name; empty for any other base.

    Raises:
        UserError: a file is no safetensors file.
    """
    files = list_safetensors(Path(base).expanduser() / part)
    return {name: shape for file in files for name, shape in read_tensor_shapes(file).items()}
