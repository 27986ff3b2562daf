"""Tells of bases that can be trained, and that something is to be known of: stored in 8 bits, or distilled."""

import re
from collections.abc import Iterator
from pathlib import Path

from dreamloom.train.families.files import find_family, find_folder, read_model_json
from dreamloom.train.model.family import Family
from dreamloom.train.model.safetensors_header import read_dtypes, read_metadata
from dreamloom.train.model.weight_files import list_safetensors

_EIGHT_BITS = "F8_"
"""Beginning of safetensors' names of dtypes of 8 bits: F8_E4M3, F8_E5M2."""
_DISTILLED = re.compile(r"(?<![a-z])(turbo|lightning|hyper|lcm|dmd2?|pcm|tcd)(?![a-z])", re.IGNORECASE)
"""Words by which models are called that draw in a few steps."""
_OF_FEW_STEPS = ("LCMScheduler", "TCDScheduler")
"""Schedulers of diffusers that only such models are drawn with."""


def base_notes(base: str) -> list[str]:
    """Says what is to be known of a base that can be trained, in sentences; nothing of most.

    Args:
        base: a diffusers folder, a single .safetensors or a hub id.

    Raises:
        UserError: a file of it is no safetensors file, or of no family.
    """
    family = find_family(base)
    return [] if family is None else [*_eight_bits(base, family), *_distilled(base)]


def _eight_bits(base: str, family: Family) -> list[str]:
    parts = [part for part, dtypes in _dtypes(base, family) if any(d.startswith(_EIGHT_BITS) for d in dtypes)]
    if not parts:
        return []
    return [
        f"The base {base} stores {', '.join(parts)} in 8 bits. All values are taken as they are, but lost precision "
        "when they were stored so; if there is the model in fp16, bf16 or fp32, name that."
    ]


def _distilled(base: str) -> list[str]:
    path = Path(base).expanduser()
    title = read_metadata(path).get("modelspec.title", "")
    said = next((word[0] for name in (path.name, title) if (word := _DISTILLED.search(name))), None)
    scheduler = str(read_model_json(base, "scheduler", "scheduler_config.json").get("_class_name"))
    reason = f"its name says {said}" if said else f"its scheduler is {scheduler}" * (scheduler in _OF_FEW_STEPS)
    if not reason:
        return []
    return [
        f"The base {base} seems to be distilled to draw in a few steps ({reason}). Training undoes that; train the "
        "model that it was made of, and draw with guidance_scale 1 if you train this one."
    ]


def _dtypes(base: str, family: Family) -> Iterator[tuple[str, list[str]]]:
    """Yields the parts of a base, each with the dtypes of its tensors, as far as they are in safetensors files."""
    path = Path(base).expanduser()
    in_file = read_dtypes(path) if path.is_file() and path.suffix == ".safetensors" else {}
    folder = None if path.is_file() else find_folder(base)
    for part, prefix in family.file_prefixes.items():
        files = list_safetensors(folder / part) if folder else []
        of_files = [dtype for file in files for dtype in read_dtypes(file).values()]
        yield part, of_files or [dtype for name, dtype in in_file.items() if name.startswith(prefix)]
