"""Tells of bases whose weights are stored in 8 bits: each value is taken as it is, but has lost precision before."""

from collections.abc import Iterator
from pathlib import Path

from dreamloom.train.families.files import find_family, find_folder
from dreamloom.train.model.safetensors_header import read_dtypes
from dreamloom.train.model.weight_files import list_safetensors

_EIGHT_BITS = "F8_"
"""Beginning of safetensors' names of dtypes of 8 bits: F8_E4M3, F8_E5M2."""


def eight_bit_notes(base: str) -> list[str]:
    """Says in a sentence which parts of a base are stored in 8 bits; nothing where none is.

    Args:
        base: a diffusers folder, a single .safetensors or a hub id.

    Raises:
        UserError: a file of it is no safetensors file, or of no family.
    """
    family = find_family(base)
    if family is None:
        return []
    parts = [part for part in family.file_prefixes if any(d.startswith(_EIGHT_BITS) for d in _dtypes(base, part))]
    if not parts:
        return []
    return [
        f"The base {base} stores {', '.join(parts)} in 8 bits. All values are taken as they are, but lost precision "
        "when they were stored so; if there is the model in fp16, bf16 or fp32, name that."
    ]


def _dtypes(base: str, part: str) -> Iterator[str]:
    path = Path(base).expanduser()
    if not path.is_file():
        folder = find_folder(base)
        for file in list_safetensors(folder / part) if folder else []:
            yield from read_dtypes(file).values()
    elif path.suffix == ".safetensors" and (family := find_family(base)):
        prefix = family.file_prefixes[part]
        yield from (dtype for name, dtype in read_dtypes(path).items() if name.startswith(prefix))
