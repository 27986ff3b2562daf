"""Configs of train and dreambooth, and the presets for GPUs of a given memory."""

from typing import Annotated, Any, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from dreamloom.base.stage import NO_RECIPE, Group, PathKind, StageConfig
from dreamloom.train.config_fields import HARDWARE, TrainDevice
from dreamloom.train.optimizers import OPTIMIZERS
from dreamloom.train.settings.data import DataSettings
from dreamloom.train.settings.embeddings import EmbeddingSettings
from dreamloom.train.settings.limits import LimitSettings
from dreamloom.train.settings.loss import LossSettings
from dreamloom.train.settings.optimizer import OptimizerSettings
from dreamloom.train.settings.preservation import PreservationSettings
from dreamloom.train.settings.run import RunSettings

_MODEL, _CLASS_IMAGES = Group("Model"), Group("Class images")

PRESETS: dict[str, dict[str, Any]] = {
    "8gb": {
        "weight_dtype": "bf16",
        "optimizer": "adafactor",
        "gradient_checkpointing": True,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "text_encoder_learning_rate": 0.0,
    },
    "12gb": {"weight_dtype": "bf16", "optimizer": "adafactor", "gradient_checkpointing": True, "batch_size": 4},
    "16gb": {"weight_dtype": "bf16", "optimizer": "adafactor", "gradient_checkpointing": True, "batch_size": 12},
    "24gb": {"gradient_checkpointing": True, "batch_size": 4},
    "48gb": {"batch_size": 16},
    "80gb": {"batch_size": 32},
}
"""Name of a preset → the values it sets, for Stable Diffusion 1.x and 2.x at 512 pixels with all weights trained."""


class TrainConfig(
    RunSettings,
    LimitSettings,
    PreservationSettings,
    LossSettings,
    OptimizerSettings,
    EmbeddingSettings,
    DataSettings,
):
    """Settings of a training run.

    The defaults suit SD 1.5 at 512 pixels. Learning rates and caption dropout follow EveryDream's advice for batches
    of 4 to 8. The classes in dreamloom.train.settings hold the fields; in help pages the last one's come first.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _note_what_was_given(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Keeps `model_fields_set` to what was given: the defaults of a base's family take the place of the others."""
        config = validate(given)
        if isinstance(given, dict):
            object.__setattr__(config, "__pydantic_fields_set__", set(given) & config.model_fields_set)
        return config

    @model_validator(mode="before")
    @classmethod
    def _apply_dependent_defaults(cls, given: Any) -> Any:
        """Fills in what a preset sets, then the defaults that depend on other settings."""
        if not isinstance(given, dict):
            return given
        given = {**PRESETS.get(str(given.get("preset")), {}), **given}
        defaults: dict[str, Any] = {"precision": "bf16"} if given.get("weight_dtype") == "bf16" else {}
        kind = OPTIMIZERS.get(str(given.get("optimizer")))
        if kind is not None and kind.estimates_rate:
            defaults |= {"learning_rate": 1.0, "text_encoder_learning_rate": 1.0}
        elif given.get("lora_rank"):  # adapters start at zero, and learn at higher rates than weights
            defaults |= {"learning_rate": 1e-4, "text_encoder_learning_rate": 5e-5}
        if kind is not None and kind.betas is not None:
            defaults |= dict(zip(("beta1", "beta2"), kind.betas, strict=True))
        return {**defaults, **given}

    @model_validator(mode="after")
    def _check_weight_dtype(self) -> "TrainConfig":
        kind = OPTIMIZERS[self.optimizer]
        if self.weight_dtype == "bf16":
            if self.precision != "bf16":
                raise ValueError("weight_dtype bf16 needs precision bf16")
            if kind.needs_all_weights and self.lora_rank is None:
                raise ValueError(f"{kind.name} needs weight_dtype fp32, or lora_rank: it looks at all weights at once")
        return self

    @model_validator(mode="after")
    def _check_fused_backward(self) -> "TrainConfig":
        if not self.fused_backward:
            return self
        if not OPTIMIZERS[self.optimizer].steps_alone:
            able = " or ".join(kind.name for kind in OPTIMIZERS.values() if kind.steps_alone)
            raise ValueError(f"fused_backward can't step {self.optimizer}; set optimizer to {able}")
        if self.max_grad_norm is not None:
            raise ValueError("fused_backward needs max_grad_norm null: the norm is of all gradients, which are gone")
        if self.gradient_accumulation_steps > 1:
            raise ValueError("fused_backward needs gradient_accumulation_steps 1: gradients are not kept to add others")
        if self.precision == "fp16":
            raise ValueError("fused_backward needs precision bf16 or fp32: in fp16 all gradients decide on a step")
        return self

    @model_validator(mode="after")
    def _check_shard(self) -> "TrainConfig":
        if not self.shard:
            return self
        if not OPTIMIZERS[self.optimizer].treats_numbers_alone:
            able = " or ".join(kind.name for kind in OPTIMIZERS.values() if kind.treats_numbers_alone)
            raise ValueError(f"shard can't share the state of {self.optimizer}; set optimizer to {able}")
        unlike = {
            "lora_rank": self.lora_rank is not None,
            "embeddings": bool(self.embeddings),
            "fused_backward": self.fused_backward,
            "compile": self.compile,
            "l2_sp": bool(self.l2_sp),
            "class_preservation": bool(self.class_preservation),
            "blank_preservation": bool(self.blank_preservation),
            "clip_skip 2": self.clip_skip > 1,
            "precision fp16": self.precision == "fp16",
            "weight_dtype bf16": self.weight_dtype == "bf16",
        }
        if names := [name for name, is_set in unlike.items() if is_set]:
            raise ValueError(f"shard is for full fine-tunes, and does not go with {names[0]}; turn one of the two off")
        return self

    @model_validator(mode="after")
    def _check_limits(self) -> "TrainConfig":
        if self.patience and self.evaluate_every_n_steps == 0:
            raise ValueError("patience counts evaluations: set evaluate_every_n_steps")
        has_limit = self.limit_mean is not None or self.limit_worst is not None
        if self.auto_ratio and not (has_limit and self.evaluate_every_n_steps != 0):
            raise ValueError("auto_ratio needs limit_mean or limit_worst, and evaluate_every_n_steps: it holds a limit")
        if self.auto_ratio and self.ground_truth_ratio is not None:
            raise ValueError("auto_ratio finds the ratio; leave ground_truth_ratio out, or turn auto_ratio off")
        return self

    @model_validator(mode="after")
    def _check_embeddings_alone(self) -> "TrainConfig":
        if self.embeddings_alone and (self.lora_rank is not None or self.frozen):
            raise ValueError("embeddings_alone needs lora_rank null and frozen empty: it trains no weights")
        kind = OPTIMIZERS[self.optimizer]
        if self.embeddings and kind.estimates_rate and self.embedding_learning_rate != self.learning_rate:
            raise ValueError(f"{kind.name} has one rate: set embedding_learning_rate to learning_rate")
        return self


class DreamBoothConfig(StageConfig):
    """Settings of the class images that the base model draws."""

    base: Annotated[str, PathKind.MODEL, _MODEL] = Field(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        description="Model that draws: a diffusers folder, a .safetensors or .ckpt file, or a hub ID (owner/name).",
    )
    num_class_images: Annotated[int, NO_RECIPE, _CLASS_IMAGES] = Field(
        200, ge=1, le=100_000, description="Number of images to draw of each class."
    )
    prior_loss_weight: Annotated[float, NO_RECIPE, _CLASS_IMAGES] = Field(
        1.0, ge=0, le=100, description="Factor of the loss of class images."
    )
    resolution: Annotated[int, _CLASS_IMAGES] = Field(
        512, ge=32, le=4096, description="Side of the class images, in pixels."
    )
    sample_steps: Annotated[int, _CLASS_IMAGES] = Field(25, ge=1, le=1000, description="Denoising steps per image.")
    guidance_scale: Annotated[float, _CLASS_IMAGES] = Field(
        7.5, ge=0, le=100, description="Classifier-free guidance scale."
    )
    seed: Annotated[int, _CLASS_IMAGES] = Field(0, ge=0, lt=2**63, description="Seed of the noise.")
    sample_batch_size: Annotated[int, NO_RECIPE, HARDWARE] = Field(
        4, ge=1, le=4096, description="Images drawn at a time."
    )
    device: TrainDevice = "auto"


def shared_settings(source: StageConfig, target: type[StageConfig]) -> dict[str, Any]:
    """Returns the values of the fields that `source` has in common with another config, by name."""
    shared = set(type(source).model_fields) & set(target.model_fields)
    return {name: getattr(source, name) for name in sorted(shared)}
