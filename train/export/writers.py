"""Writes a model's files, in half or full precision.

A new format is a function and a line in WRITERS; a format that is optional has a field in ExportConfig, which its
function looks at.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamloom.base.progress import Progress
from dreamloom.train.export.config import SINGLE_FILE, ExportConfig
from dreamloom.train.model.lora import adapter_state_dict, merge_adapters, save_adapters
from dreamloom.train.model.model import Model
from dreamloom.train.model.original_keys import NoOriginalKeyError, to_original_keys
from dreamloom.train.run.find import TrainedModel

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
"""The dtypes of ExportConfig."""


def write_model(trained: TrainedModel, folder: Path, config: ExportConfig, progress: Progress) -> str:
    """Writes a trained model into `folder`, in every format that the config asks for.

    Returns:
        Why a format could not be written; empty if all were.
    """
    assert trained.config is not None
    steps = len(WRITERS) + 1
    progress(0, steps, "loading the model")
    base = trained.load_base(trained.config.base, torch.device("cpu"))
    model = trained.load(base, config.use_ema)
    if trained.config.lora_rank is not None:
        save_adapters(adapter_state_dict(model), trained.config, folder, DTYPES[config.dtype])
        if not config.merge_lora:
            progress(steps, steps, "written")
            return ""
        merge_adapters(model)
    for module in (model.unet, model.vae, model.text_encoder):
        module.to(DTYPES[config.dtype])
    notes = []
    for done, (name, write) in enumerate(WRITERS.items(), start=1):
        progress(done, steps, f"writing the {name}")
        notes.append(write(model, folder, config))
    progress(steps, steps, "written")
    return " ".join(filter(None, notes))


def write_diffusers(model: Model, folder: Path, config: ExportConfig) -> str:
    """Writes a diffusers folder."""
    import diffusers

    diffusers.StableDiffusionPipeline(
        unet=model.unet,
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        scheduler=model.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    _restore_text_model_prefix(folder / "text_encoder" / "model.safetensors")
    return ""


def write_single_file(model: Model, folder: Path, config: ExportConfig) -> str:
    """Writes one file with Stable Diffusion's original keys, if the config asks for it.

    Returns:
        Why it could not be written: a layer has no original key.
    """
    if not config.single_file:
        return ""
    is_open_clip = model.text_encoder.config.hidden_act == "gelu"  # Stable Diffusion 2's; 1's is quick_gelu
    try:
        unet, vae, text_encoder = (_contiguous(part) for part in (model.unet, model.vae, model.text_encoder))
        weights = to_original_keys(unet, vae, text_encoder, is_open_clip)
    except NoOriginalKeyError as error:
        vae_class = type(model.vae).__name__
        return (
            f"No single file was written: Stable Diffusion's original has no name for {error} ({vae_class} as the VAE)."
        )
    contiguous = {key: value.contiguous() for key, value in weights.items()}
    save_file(contiguous, folder / SINGLE_FILE, metadata={"format": "pt"})
    return ""


Writer = Callable[[Model, Path, ExportConfig], str]
"""Writes a model in one format into a folder; returns why it could not, or nothing."""

WRITERS: dict[str, Writer] = {"diffusers folder": write_diffusers, "single file": write_single_file}
"""Name of a format, for people → its writer."""


def _restore_text_model_prefix(file: Path) -> None:
    """Puts `text_model.` before the keys: transformers 5 dropped the prefix and reads both, older releases need it."""
    weights = load_file(file)
    named = {key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in weights.items()}
    save_file(named, file, metadata={"format": "pt"})


def _contiguous(module: Any) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in module.state_dict().items()}
