"""Writes a model's files, in half or full precision.

A new format is a function and a line in WRITERS; a format that is optional has a field in ExportConfig, which its
function looks at.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dreamloom.base.files.atomic import commit_folder
from dreamloom.base.files.disk import explain_write_errors
from dreamloom.base.progress import Progress, silent
from dreamloom.train.export.card import title_of
from dreamloom.train.export.config import SINGLE_FILE, ExportConfig
from dreamloom.train.export.lora_files import save_adapters
from dreamloom.train.export.metadata import adapter_metadata, model_spec
from dreamloom.train.export.older_releases import write_for_older_releases
from dreamloom.train.export.safetensors_file import save_with_hash
from dreamloom.train.families.original_keys import NoOriginalKeyError
from dreamloom.train.model.embeddings import save_embeddings, take_embeddings
from dreamloom.train.model.lora import adapter_state_dict, merge_adapters
from dreamloom.train.model.model import Model
from dreamloom.train.run.find import TrainedModel, find_trained_model

_log = logging.getLogger(__name__)

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
"""The dtypes of ExportConfig."""


@dataclass(frozen=True)
class Export:
    """A model that is ready to be written."""

    model: Model
    """With all adapters merged, in the dtype of the config."""
    config: ExportConfig
    metadata: Mapping[str, str]
    """What a single file says of itself."""


def write_model(
    trained: TrainedModel,
    folder: Path,
    config: ExportConfig,
    progress: Progress,
    writers: "Mapping[str, Writer] | None" = None,
) -> str:
    """Writes a trained model into `folder`, in every format that the config asks for.

    Args:
        trained: a checkpoint.
        folder: is there, and empty.
        config: which weights and formats are written.
        progress: called with the formats written.
        writers: the formats, by name; None: all.

    Returns:
        Why a format could not be written; empty if all were.
    """
    assert trained.config is not None and trained.checkpoint is not None
    writers = WRITERS if writers is None else writers
    steps = len(writers) + 1
    progress(0, steps, "loading the model")
    base = trained.load_base(trained.config.base, torch.device("cpu"), "fp32")
    model = trained.load(base, config.use_ema)
    save_embeddings(model, take_embeddings(model), folder, DTYPES[config.dtype])
    if trained.config.embeddings_alone:
        progress(steps, steps, "written")
        return ""
    origin = (trained.config, trained.checkpoint, title_of(trained.checkpoint, config))
    if trained.config.lora_rank is not None:
        metadata = adapter_metadata(model, *origin)
        save_adapters(model, adapter_state_dict(model), trained.config, folder, DTYPES[config.dtype], metadata)
        if not config.merge_lora:
            progress(steps, steps, "written")
            return ""
        merge_adapters(model)
    for module in model.components.values():
        module.to(DTYPES[config.dtype])
    notes = []
    export = Export(model, config, model_spec(model, *origin))
    for done, (name, write) in enumerate(writers.items(), start=1):
        progress(done, steps, f"writing the {name}")
        notes.append(write(export, folder))
    progress(steps, steps, "written")
    return " ".join(filter(None, notes))


def export_single_file(checkpoint: Path, target: Path) -> None:
    """Exports a checkpoint to a folder with one file, in half precision: the model's, or its adapters'.

    Raises:
        UserError: the disk is full.
    """
    trained = find_trained_model(checkpoint)
    assert trained.config is not None
    only = {"single file": WRITERS["single file"]}
    remedy = "make room and run again: the checkpoint is there"
    with explain_write_errors(target, remedy), commit_folder(target) as folder:
        if note := write_model(trained, folder, ExportConfig(merge_lora=False), silent, only):
            _log.warning("%s", note)


def write_diffusers(export: Export, folder: Path) -> str:
    """Writes a diffusers folder."""
    import diffusers

    model = export.model
    pipeline = getattr(diffusers, model.family.pipeline)(**model.pipeline_components(model.scheduler))
    pipeline.save_pretrained(folder)
    write_for_older_releases(folder, model.tokenizers)
    return ""


def write_single_file(export: Export, folder: Path) -> str:
    """Writes one file with the original keys, if the config asks for it.

    The original config lies beside it where the weights alone do not tell programs how to run them.

    Returns:
        Why it could not be written: a layer has no original key.
    """
    if not export.config.single_file:
        return ""
    model = export.model
    try:
        weights = model.original_weights()
    except NoOriginalKeyError as error:
        vae_class = type(model.vae).__name__
        return (
            f"No single file was written: Stable Diffusion's original has no name for {error} ({vae_class} as the VAE)."
        )
    save_with_hash({**weights, **markers(model)}, folder / SINGLE_FILE, export.metadata)
    if config := model.original_config():
        (folder / SINGLE_FILE).with_suffix(".yaml").write_text(config, encoding="utf-8")
    return ""


Writer = Callable[[Export, Path], str]
"""Writes a model in one format into a folder; returns why it could not, or nothing."""

WRITERS: dict[str, Writer] = {"diffusers folder": write_diffusers, "single file": write_single_file}
"""Name of a format, for people → its writer."""


def markers(model: Model) -> dict[str, Tensor]:
    """Makes the empty tensors whose names tell A1111, Forge and others how a model predicts."""
    flags = {"v_pred": model.prediction_type == "v_prediction", "ztsnr": model.has_zero_terminal_snr}
    return {name: torch.empty(0) for name, is_set in flags.items() if is_set}
