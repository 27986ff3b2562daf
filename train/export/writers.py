"""Writes a model's files, in half or full precision."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamloom.base.progress import Progress
from dreamloom.train.export.export import SINGLE_FILE, ExportConfig
from dreamloom.train.model.lora import adapter_state_dict, merge_adapters, save_adapters
from dreamloom.train.model.model import Model
from dreamloom.train.model.original_keys import NoOriginalKeyError, to_original_keys
from dreamloom.train.run.find import Source

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def write_model(source: Source, folder: Path, config: ExportConfig, progress: Progress) -> str:
    """Writes a diffusers folder into `folder` and, where it can be, a single file.

    Returns:
        Why there is no single file, where one was wanted; else nothing.
    """
    assert source.config is not None
    progress(0, 3, "loading the model")
    base = source.load_base(source.config.base, torch.device("cpu"))
    model = source.load(base, config.use_ema)
    if source.config.lora_rank is not None:
        save_adapters(adapter_state_dict(model), source.config, folder, DTYPES[config.dtype])
        if not config.merge_lora:
            progress(3, 3, "written")
            return ""
        merge_adapters(model)
    parts = {name: getattr(model, name) for name in ("unet", "vae", "text_encoder")}
    parts = {name: part.to(DTYPES[config.dtype]) for name, part in parts.items()}
    progress(1, 3, "writing the diffusers folder")
    _write_diffusers(model, parts, folder)
    progress(2, 3, "writing the single file")
    note = _write_single_file(parts, folder / SINGLE_FILE) if config.single_file else ""
    progress(3, 3, "written")
    return note


def _write_diffusers(model: Model, parts: dict[str, Any], folder: Path) -> None:
    import diffusers

    diffusers.StableDiffusionPipeline(
        **parts,
        tokenizer=model.tokenizer,
        scheduler=model.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    _name_text_encoder_as_before(folder / "text_encoder" / "model.safetensors")


def _name_text_encoder_as_before(file: Path) -> None:
    """Puts `text_model.` before the keys: transformers 5 dropped it, and reads both; all before it need it."""
    weights = load_file(file)
    named = {key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in weights.items()}
    save_file(named, file, metadata={"format": "pt"})


def _write_single_file(parts: dict[str, Any], file: Path) -> str:
    config = parts["text_encoder"].config
    open_clip = config.hidden_act == "gelu"  # Stable Diffusion 2's; 1's is quick_gelu
    try:
        unet, vae, text_encoder = (_plain(part) for part in parts.values())
        weights = to_original_keys(unet, vae, text_encoder, open_clip)
    except NoOriginalKeyError as error:
        kind = type(parts["vae"]).__name__
        return f"No single file was written: Stable Diffusion's original has no name for {error} ({kind} as the VAE)."
    save_file({key: value.contiguous() for key, value in weights.items()}, file, metadata={"format": "pt"})
    return ""


def _plain(module: Any) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in module.state_dict().items()}
