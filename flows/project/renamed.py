"""What keys and flags are called here that release 0.1, or another trainer, calls otherwise; for error messages."""

from collections.abc import Mapping

from pydantic import BaseModel

from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.caption.config import CaptionConfig
from dreamloom.curate.config import ChooseConfig, ScoreConfig
from dreamloom.scrape.collection.migrations import OF_COCO, OF_LABELLED, RENAMED
from dreamloom.scrape.collection.schema import Table
from dreamloom.scrape.datasets.coco import CocoConfig
from dreamloom.scrape.datasets.folder import FolderConfig
from dreamloom.scrape.datasets.huggingface import HuggingfaceConfig
from dreamloom.scrape.datasets.imagenet import ImagenetConfig
from dreamloom.scrape.datasets.webdataset import WebdatasetConfig
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.train.config import DreamBoothConfig, TrainConfig
from dreamloom.train.evaluate.config import EvaluateConfig
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.run.migrations import CONFIG

_RENAMED: Mapping[type[BaseModel], Mapping[str, str]] = {
    FilterConfig: RENAMED[Table.CANDIDATES],
    FolderConfig: RENAMED[Table.RECORDS],
    CocoConfig: OF_COCO,
    HuggingfaceConfig: {**RENAMED[Table.RECORDS], **OF_LABELLED},
    WebdatasetConfig: OF_LABELLED,
    ImagenetConfig: RENAMED[Table.RECORDS],
    ScrapeConfig: RENAMED[Table.RECORDS],
    ScoreConfig: RENAMED[Table.SCORES],
    ClipConfig: RENAMED[Table.SCORES],
    ChooseConfig: {"near_duplicate_bits": "near_duplicates"},
    CaptionConfig: RENAMED[Table.CAPTIONS],
    DreamBoothConfig: {
        "class_pictures": "num_class_images",
        "prior_weight": "prior_loss_weight",
        "batch": "sample_batch_size",
        "guidance": "guidance_scale",
    },
    TrainConfig: CONFIG,
    EvaluateConfig: {**CONFIG, "average": "use_ema", "timesteps": "eval_timesteps"},
    ExportConfig: {"average": "use_ema", "merged": "merge_lora"},
}
"""Config → old key → new key. A table may be of several configs, and name keys that this one never had."""

_FLAGS = {"--picture": "--image"}
"""Flags that are in no config."""


_OF_OTHER_TRAINERS = {
    "lr": "learning_rate",
    "unet_lr": "learning_rate",
    "text_encoder_lr": "text_encoder_learning_rate",
    "te_lr": "text_encoder_learning_rate",
    "lr_warmup": "lr_warmup_images",
    "lr_warmup_steps": "lr_warmup_images",
    "optimizer_type": "optimizer",
    "train_batch_size": "batch_size",
    "bs": "batch_size",
    "grad_accum": "gradient_accumulation_steps",
    "max_epochs": "epochs",
    "max_train_epochs": "epochs",
    "num_train_epochs": "epochs",
    "steps": "max_train_steps",
    "num_steps": "max_train_steps",
    "model": "base",
    "base_model": "base",
    "resume_ckpt": "base",
    "pretrained_model_name_or_path": "base",
    "network_dim": "lora_rank",
    "network_rank": "lora_rank",
    "rank": "lora_rank",
    "mixed_precision": "precision",
    "flip_aug": "flip_p",
    "cond_dropout": "caption_dropout_rate",
    "save_every_n_steps": "checkpoint_every_n_steps",
    "save_every_n_epochs": "checkpoint_every_n_epochs",
    "checkpointing_steps": "checkpoint_every_n_steps",
    "ckpt_every_n_minutes": "checkpoint_every_n_minutes",
    "validation_prompt": "sample_prompts",
    "logger_name": "wandb_project",
}
"""Key of train in sd-scripts, diffusers' scripts or EveryDream 2, or its usual short form → ours; values may differ."""


def related_key(key: str, model: type[BaseModel]) -> str | None:
    """Returns which key of train does what another trainer's does; None where none is known."""
    return _OF_OTHER_TRAINERS.get(key) if issubclass(model, TrainConfig) else None


def current_key(key: str, model: type[BaseModel]) -> str | None:
    """Returns what a key of a config is called now; None where it was not renamed."""
    for owner in model.__mro__:
        name = _RENAMED.get(owner, {}).get(key)
        if name in model.model_fields and key not in model.model_fields:
            return name
    return None


def current_flag(flag: str, configs: Mapping[str, type[BaseModel]]) -> str | None:
    """Returns what a flag of a command is called now; None where it was not renamed.

    Args:
        flag: such as --batch, --no-average or --clip.weights.
        configs: the configs of the command, by what stands before their keys: "", "clip.".
    """
    if flag in _FLAGS:
        return _FLAGS[flag]
    prefix, dot, word = flag.removeprefix("--").rpartition(".")
    model = configs.get(prefix + dot)
    if model is None or not flag.startswith("--"):
        return None
    if name := current_key(word.replace("-", "_"), model):
        return f"--{prefix}{dot}{name}".replace("_", "-")
    name = current_key(word.removeprefix("no-").replace("-", "_"), model)
    is_switch = name is not None and model.model_fields[name].annotation is bool
    return f"--{prefix}{dot}no-{name}".replace("_", "-") if is_switch else None
