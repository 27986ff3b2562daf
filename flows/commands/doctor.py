"""`dreamloom doctor`: what this machine has for a fine-tune, what it lacks, and how to mend it."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.models.hub import check_on_hub, is_downloaded
from dreamloom.caption.config import CaptionConfig
from dreamloom.flows.terminal.json_output import AsJson, print_json
from dreamloom.flows.terminal.terminal import print_table, rows_table, size
from dreamloom.train.config import PRESETS, TrainConfig

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "open_clip_torch", "pyarrow", "duckdb", "pydantic")
_CHECKPOINT_BYTES = 12 * (860 + 123) * 10**6
"""A checkpoint of Stable Diffusion 1.5: weights of UNet and text encoder, and AdamW's two moments, in float32."""
_WEIGHT_BYTES = 4 * (860 + 123 + 84) * 10**6
"""Its weights alone, with the VAE's."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    text: str
    """What there is."""
    mend: str = ""
    """What to do; empty: all is well."""
    stops: bool = False
    """Whether nothing works before it is mended."""


def doctor(folder: Path = Path(), *, network: bool = False, as_json: AsJson = False) -> int:
    """Check GPU, disk, memory, models, write access and versions, and say how to mend what is amiss.

    Parameters
    ----------
    folder
        Where the project is, or will be.
    network
        Also ask the Hugging Face hub for the default models that are not on this machine.
    as_json
        Print it as JSON.
    """
    findings = list(examine(folder.expanduser(), network))
    if as_json:
        print_json(findings)
    else:
        rows = [{"": _mark(each), "what": each.name, "found": each.text, "to mend": each.mend} for each in findings]
        print_table(rows_table("This machine", rows))
    return int(any(each.stops for each in findings))


def examine(folder: Path, network: bool) -> Iterator[Finding]:
    """Yields what there is of each thing that a fine-tune needs."""
    yield from _versions()
    yield from _gpu()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    few = f"Stable Diffusion 1.5's weights alone take {size(_WEIGHT_BYTES)}; close programs, or use a larger machine"
    yield Finding("memory", size(memory), few if memory < 2 * _WEIGHT_BYTES else "")
    yield from _disk(folder)
    for label, model in (("base model", TrainConfig().base), ("captioning model", CaptionConfig().model)):
        yield _model(label, model, network)


def _versions() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding("Python", version, "" if fits else "use Python 3.11, 3.12 or 3.13", not fits)
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("packages", ", ".join(found), f"install {', '.join(missing)}" if missing else "", bool(missing))


def _gpu() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("GPU", f"torch can't be imported ({error})", "install torch again (make install)", stops=True)
        return
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        mend = "if there is one, install its driver (nvidia-smi should list it); a CPU trains small models only"
        yield Finding("GPU", f"none; {built}", mend)
        return
    for number in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(number).total_memory
        fitting = [name for name in PRESETS if int(name.removesuffix("gb")) <= round(memory / 2**30)]
        text = f"{torch.cuda.get_device_name(number)}, {size(memory)}"
        mend = "" if fitting else "train a LoRA: lora_rank: 16, with preset: 8gb"
        yield Finding("GPU", f"{text}; preset: {fitting[-1]}" if fitting else text, mend)


def _disk(folder: Path) -> Iterator[Finding]:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free, wanted = shutil.disk_usage(there).free, 3 * _CHECKPOINT_BYTES
    few = f"a full fine-tune keeps two checkpoints and writes a third, {size(wanted)}; make room, or train a LoRA"
    yield Finding("disk", f"{size(free)} free at {there}", few if free < wanted else "")
    for label, place in (("project's folder", there), ("temporary folder", Path(tempfile.gettempdir()))):
        try:
            with tempfile.TemporaryFile(dir=place):
                yield Finding(label, f"{place} can be written")
        except OSError as error:
            mend = "change its rights, or name another folder"
            yield Finding(label, f"{place} can't be written ({error.strerror})", mend, stops=True)


def _model(label: str, name: str, network: bool) -> Finding:
    if is_downloaded(name):
        return Finding(label, f"{name} is on this machine")
    if not network:
        return Finding(label, f"{name} is not on this machine, and is loaded from the hub (--network asks for it)")
    try:
        check_on_hub(name)
    except UserError as error:
        return Finding(label, str(error), "copy the model to this machine and name its folder")
    return Finding(label, f"{name} is on the hub, and is loaded when it is needed")


def _mark(finding: Finding) -> str:
    return "✗" if finding.stops else "!" if finding.mend else "✓"
