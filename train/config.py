"""Configs of train and dreambooth, and the presets for GPUs of a given memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from dreamloom.base.stage import BY_CONTENT, NO_RECIPE, Group, PathKind, StageConfig
from dreamloom.train.config_fields import (
    DATA,
    EVALUATION,
    HARDWARE,
    BucketResoSteps,
    NumWorkers,
    PadColor,
    Precision,
    Resolution,
    TrainDevice,
    Upscale,
)
from dreamloom.train.optimizers import OPTIMIZERS, describe_optimizers
from dreamloom.train.optimizers.adamw import ADAMW
from dreamloom.train.optimizers.lr_schedulers import LR_SCHEDULERS

if TYPE_CHECKING:
    # mypy knows no choices that a registry makes
    OptimizerName = str
    LRSchedulerName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]
    LRSchedulerName = Literal[tuple(LR_SCHEDULERS)]

_MODEL, _CAPTIONS, _ADAPTERS = Group("Model"), Group("Captions"), Group("Adapters (LoRA)")
_LENGTH, _OPTIMIZER, _LEARNING_RATE = Group("Batches and length"), Group("Optimizer"), Group("Learning rate")
_LOSS, _CHECKPOINTS, _SAMPLES = Group("Loss and noise"), Group("Checkpoints"), Group("Samples")
_LOGGING, _CLASS_IMAGES = Group("Logging"), Group("Class images")

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
    "24gb": {"gradient_checkpointing": True, "batch_size": 4},
    "80gb": {"batch_size": 32},
}
"""Name of a preset → the values it sets, for Stable Diffusion 1.x and 2.x at 512 pixels with all weights trained."""


class TrainConfig(StageConfig):
    """Settings of a training run.

    The defaults suit SD 1.5 at 512 pixels. Learning rates and caption dropout follow EveryDream's advice for batches
    of 4 to 8.
    """

    base: Annotated[str, PathKind.MODEL, BY_CONTENT, _MODEL] = Field(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        description="Model to start from: a diffusers folder, a .safetensors or .ckpt file, or a hub ID (owner/name).",
    )
    vae: Annotated[str | None, PathKind.MODEL, BY_CONTENT, _MODEL] = Field(
        None,
        description="Diffusers folder of an AutoencoderKL or AutoencoderTiny that replaces the base's VAE; null: the "
        "base's.",
    )
    frozen: Annotated[list[str], _MODEL] = Field(
        [], description="Name patterns of parameters to leave untrained, such as unet.down_blocks.*."
    )

    resolution: Resolution = 512
    bucket_reso_steps: BucketResoSteps = 64
    upscale: Upscale = True
    pad_color: PadColor = None
    crop_jitter: Annotated[float, DATA] = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of its sides by which a crop may shrink and shift; 0: the largest centered crop.",
    )
    crops_per_image: Annotated[int, DATA] = Field(
        4, ge=2, le=64, description="Number of crops cached per image if crop_jitter is set."
    )
    flip_p: Annotated[float, DATA] = Field(
        0.0, ge=0, le=1, description="Probability of a horizontal flip, unless flip_p.txt sets another."
    )
    latent_cache: Annotated[Path | None, PathKind.OUTPUT, NO_RECIPE, DATA] = Field(
        None, description="Folder for cached latents; null: .latents beside the run."
    )

    caption_dropout_rate: Annotated[float, _CAPTIONS] = Field(
        0.05, ge=0, le=1, description="Probability of an empty caption, unless cond_dropout.txt sets another."
    )
    shuffle_tags: Annotated[bool, _CAPTIONS] = Field(
        False, description="Shuffle the comma-separated tags after a caption's first comma each time it is shown."
    )
    keep_tags: Annotated[int, _CAPTIONS] = Field(
        0, ge=0, le=1000, description="Number of tags after the first comma that keep their place."
    )

    batch_size: Annotated[int, _LENGTH] = Field(4, ge=1, le=4096, description="Images per forward pass.")
    gradient_accumulation_steps: Annotated[int, _LENGTH] = Field(
        1, ge=1, le=1024, description="Forward passes per optimizer step; their gradients are averaged."
    )
    epochs: Annotated[int, _LENGTH] = Field(
        20, ge=1, le=100_000, description="Number of passes over the training folder."
    )
    max_train_steps: Annotated[int | None, _LENGTH] = Field(
        None, ge=1, description="Stop after this many optimizer steps; null: after `epochs`."
    )
    seed: Annotated[int, _LENGTH] = Field(
        0, ge=0, lt=2**63, description="Seed of the image order, noise, timesteps and dropout."
    )

    optimizer: Annotated[OptimizerName, _OPTIMIZER] = Field(ADAMW.name, description=f"{describe_optimizers()}.")
    weight_decay: Annotated[float, _OPTIMIZER] = Field(
        0.01, ge=0, le=1, description="Decoupled weight decay; it is multiplied by the learning rate."
    )
    max_grad_norm: Annotated[float, _OPTIMIZER] = Field(
        1.0, gt=0, description="Clip the gradient to this norm over all parameters."
    )
    ema_half_life_images: Annotated[int | None, _OPTIMIZER] = Field(
        None, ge=1, description="Half-life of an exponential moving average of the weights, in images; null: no EMA."
    )

    learning_rate: Annotated[float, _LEARNING_RATE] = Field(
        2e-6, gt=0, le=10, description="Learning rate of the UNet; if not set, 1e-4 with lora_rank and 1 with prodigy."
    )
    text_encoder_learning_rate: Annotated[float, _LEARNING_RATE] = Field(
        5e-7,
        ge=0,
        le=10,
        description="Learning rate of the text encoder; 0: do not train it; if not set, 5e-5 with lora_rank and 1 with "
        "prodigy.",
    )
    lr_scheduler: Annotated[LRSchedulerName, _LEARNING_RATE] = Field(
        "constant", description="Course of the learning rates after the warm-up."
    )
    lr_warmup_images: Annotated[int, _LEARNING_RATE] = Field(
        0, ge=0, description="Number of images over which the learning rates rise from 0."
    )

    prediction_type: Annotated[Literal["auto", "epsilon", "v_prediction"], _LOSS] = Field(
        "auto", description="What the UNet predicts; auto: as the base's scheduler config says."
    )
    zero_terminal_snr: Annotated[bool, _LOSS] = Field(
        False, description="Rescale the noise schedule so that its last step is pure noise; needs v_prediction."
    )
    min_snr_gamma: Annotated[float | None, _LOSS] = Field(
        5.0,
        gt=0,
        description="γ of min-SNR loss weighting; null: weigh all timesteps equally; if not set, null with "
        "debiased_estimation_loss or zero_terminal_snr.",
    )
    debiased_estimation_loss: Annotated[bool, _LOSS] = Field(
        False, description="Weigh losses by 1/√SNR (debiased estimation) instead of min-SNR."
    )
    huber_delta: Annotated[float | None, _LOSS] = Field(
        None, gt=0, description="δ of a Huber loss; null: squared error."
    )
    noise_offset: Annotated[float, _LOSS] = Field(
        0.0, ge=0, le=1, description="Strength of noise that is constant over each channel."
    )
    multires_noise_discount: Annotated[float, _LOSS] = Field(
        0.0,
        ge=0,
        lt=1,
        description="Strength of each coarser octave of noise relative to the finer one (pyramid noise); 0: off.",
    )
    input_perturbation: Annotated[float, _LOSS] = Field(
        0.0, ge=0, le=1, description="Strength of extra noise that the UNet sees but does not predict; usually 0.1."
    )
    min_timestep: Annotated[int, _LOSS] = Field(0, ge=0, le=9999, description="First timestep to train.")
    max_timestep: Annotated[int | None, _LOSS] = Field(
        None, ge=0, le=9999, description="Last timestep to train; null: the noise schedule's last."
    )

    lora_rank: Annotated[int | None, _ADAPTERS] = Field(
        None, ge=1, le=1024, description="Train LoRA adapters of this rank instead of the weights; null: the weights."
    )
    lora_alpha: Annotated[int | None, _ADAPTERS] = Field(
        None, ge=1, description="Scale adapters by alpha/rank; null: alpha equals the rank."
    )

    preset: Annotated[Literal["8gb", "12gb", "24gb", "80gb"] | None, NO_RECIPE, HARDWARE] = Field(
        None, description="Settings for a GPU with this much memory; settings given beside it win."
    )
    precision: Precision = "auto"
    weight_dtype: Annotated[Literal["fp32", "bf16"], HARDWARE] = Field(
        "fp32",
        description="Storage of the weights. bf16 halves weights and gradients, and rounds updates stochastically; "
        "adapters are always fp32.",
    )
    device: TrainDevice = "auto"
    gradient_checkpointing: Annotated[bool, HARDWARE] = Field(
        False, description="Recompute activations in the backward pass to save memory."
    )
    compile: Annotated[bool, HARDWARE] = Field(
        False, description="Compile the UNet with torch.compile: takes minutes for each bucket, then speeds up a GPU."
    )
    num_workers: NumWorkers = 4

    checkpoint_every_n_steps: Annotated[int, NO_RECIPE, _CHECKPOINTS] = Field(
        500, ge=1, description="Save a checkpoint every N optimizer steps."
    )
    checkpoints_total_limit: Annotated[int, NO_RECIPE, _CHECKPOINTS] = Field(
        1, ge=1, description="Number of newest checkpoints to keep; the best one is kept too."
    )

    evaluate_every_n_steps: Annotated[int, EVALUATION] = Field(
        500, ge=0, description="Evaluate every N optimizer steps; 0: only before and after training."
    )
    eval_timesteps: Annotated[int, EVALUATION] = Field(
        8, ge=1, le=1000, description="Number of timesteps at which each held-out image is evaluated."
    )

    sample_every_n_steps: Annotated[int, NO_RECIPE, _SAMPLES] = Field(
        500, ge=0, description="Draw samples every N optimizer steps; 0: only before and after training."
    )
    sample_prompts: Annotated[list[str], NO_RECIPE, _SAMPLES] = Field(
        [], description="Prompts of the samples; none: some captions of each training folder."
    )
    sample_prompts_file: Annotated[Path | None, NO_RECIPE, _SAMPLES] = Field(
        None, description="File with further prompts, one a line; read again each time samples are drawn."
    )
    sample_steps: Annotated[int, NO_RECIPE, _SAMPLES] = Field(
        25, ge=1, le=1000, description="Denoising steps per sample."
    )
    guidance_scale: Annotated[float, NO_RECIPE, _SAMPLES] = Field(
        7.5, ge=0, le=100, description="Classifier-free guidance scale of the samples."
    )

    log_every_n_steps: Annotated[int, NO_RECIPE, _LOGGING] = Field(
        10, ge=1, description="Log every N optimizer steps (each log synchronizes with the GPU)."
    )
    wandb_project: Annotated[str | None, NO_RECIPE, _LOGGING] = Field(
        None, description="Weights & Biases project to log to (needs the extra wandb); null: TensorBoard only."
    )

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
        if given.get("debiased_estimation_loss") or given.get("zero_terminal_snr"):
            defaults["min_snr_gamma"] = None
        return {**defaults, **given}

    @model_validator(mode="after")
    def _check_buckets(self) -> "TrainConfig":
        if self.resolution % self.bucket_reso_steps:
            raise ValueError(
                f"resolution {self.resolution} is not a multiple of bucket_reso_steps {self.bucket_reso_steps}"
            )
        if self.pad_color and self.crop_jitter:
            raise ValueError("pad_color needs crop_jitter 0: padded images are not cropped")
        return self

    @model_validator(mode="after")
    def _check_zero_terminal_snr(self) -> "TrainConfig":
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "zero_terminal_snr needs prediction_type v_prediction: epsilon can't be learned from pure noise"
            )
        if self.zero_terminal_snr and self.min_snr_gamma is not None:
            raise ValueError("zero_terminal_snr needs min_snr_gamma null: min-SNR gives pure noise no weight")
        if self.zero_terminal_snr and self.debiased_estimation_loss:
            raise ValueError("zero_terminal_snr needs debiased_estimation_loss off: it gives pure noise no weight")
        return self

    @model_validator(mode="after")
    def _check_optimizer(self) -> "TrainConfig":
        kind = OPTIMIZERS[self.optimizer]
        if kind.estimates_rate and self.text_encoder_learning_rate not in (0, self.learning_rate):
            raise ValueError(f"{kind.name} has one rate: set text_encoder_learning_rate to learning_rate, or to 0")
        if kind.average and (self.lr_scheduler != "constant" or self.ema_half_life_images is not None):
            raise ValueError(
                f"{kind.name} needs lr_scheduler constant and ema_half_life_images null: it averages by itself"
            )
        if self.weight_dtype == "bf16":
            if self.precision != "bf16":
                raise ValueError("weight_dtype bf16 needs precision bf16")
            if kind.needs_all_weights and self.lora_rank is None:
                raise ValueError(f"{kind.name} needs weight_dtype fp32, or lora_rank: it looks at all weights at once")
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> "TrainConfig":
        if self.debiased_estimation_loss and self.min_snr_gamma is not None:
            raise ValueError("debiased_estimation_loss needs min_snr_gamma null: both weigh the loss")
        if self.max_timestep is not None and self.max_timestep < self.min_timestep:
            raise ValueError(f"max_timestep {self.max_timestep} is less than min_timestep {self.min_timestep}")
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
