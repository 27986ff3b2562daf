"""What a training run can be told."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dreamloom.base.stage import NO_RECIPE, StageConfig
from dreamloom.train.presets import PRESETS


class TrainConfig(StageConfig):
    """Fine-tunes a Stable Diffusion 1.x or 2.x model on an EveryDream training folder.

    The defaults suit SD 1.5 at 512 pixels; learning rates and caption dropout follow EveryDream's advice for batches
    of 4 to 8.
    """

    base: str = Field(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        description="The model to start from: a diffusers folder, a .safetensors or .ckpt, or a hub id (owner/name).",
    )
    vae: str | None = Field(
        None, description="A VAE in place of the base's: a diffusers folder of an AutoencoderKL or AutoencoderTiny."
    )
    preset: Annotated[Literal["8gb", "12gb", "24gb", "80gb"] | None, NO_RECIPE] = Field(
        None, description="Settings for a GPU of so much memory; keys that are given win; none: as below."
    )
    resolution: int = Field(512, ge=32, le=4096, description="Side of the square bucket, in pixels; bounds all areas.")
    bucket_reso_steps: int = Field(64, ge=8, le=256, description="Bucket sides are multiples of this, in pixels.")
    upscale: bool = Field(
        True, description="Enlarge images that are smaller than their bucket; else they get a bucket they fill."
    )
    pad_color: str | None = Field(
        None,
        pattern="^#[0-9a-fA-F]{6}$",
        description="Show whole images on this colour (#ffffff is white) instead of cropping them; the loss counts "
        "inside the image only. None: crop.",
    )
    crop_jitter: float = Field(
        0.0, ge=0, le=0.5, description="Share of its sides by which a crop may shrink and move; 0: the middle, whole."
    )
    crops_per_image: int = Field(4, ge=2, le=64, description="Crops kept of each image where crop_jitter is set.")
    flip_p: float = Field(
        0.0, ge=0, le=1, description="Share of showings mirrored left to right, where no flip_p.txt says otherwise."
    )
    batch_size: int = Field(4, ge=1, le=4096, description="Pictures a forward pass.")
    gradient_accumulation_steps: int = Field(
        1, ge=1, le=1024, description="Forward passes an optimizer step; gradients are averaged."
    )
    epochs: int = Field(20, ge=1, le=100_000, description="How often the folder is gone through.")
    max_train_steps: int | None = Field(
        None, ge=1, description="Stop after this many optimizer steps; none: after `epochs`."
    )

    lora_rank: int | None = Field(
        None, ge=1, le=1024, description="Rank of adapters that learn in place of the weights; none: the weights do."
    )
    lora_alpha: int | None = Field(
        None, ge=1, description="The adapters count alpha/rank times; none: the rank, so that they count as they are."
    )
    frozen: list[str] = Field(
        [], description="What stays as it is though its part learns: patterns of names such as unet.down_blocks.*."
    )
    optimizer: Literal["adamw", "adamw8bit", "adafactor", "prodigy", "schedule_free"] = Field(
        "adamw",
        description="adamw8bit (needs the extra bitsandbytes) and adafactor save memory, prodigy finds its own rate, "
        "schedule_free averages the weights as it goes.",
    )
    learning_rate: float = Field(
        2e-6, gt=0, le=10, description="Rate of the UNet; left out with lora_rank: 1e-4, with prodigy: 1."
    )
    text_encoder_learning_rate: float = Field(
        5e-7,
        ge=0,
        le=10,
        description="Rate of the text encoder; 0 leaves it as it is; left out with lora_rank: 5e-5, with prodigy: 1.",
    )
    lr_scheduler: Literal["constant", "cosine"] = Field("constant", description="How the rates go after the warm-up.")
    lr_warmup_images: int = Field(0, ge=0, description="Pictures over which the rates rise from 0.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="The optimizer's weight decay, times the rate.")
    max_grad_norm: float = Field(1.0, gt=0, description="The largest norm of the gradient over all parameters.")

    prediction_type: Literal["auto", "epsilon", "v_prediction"] = Field(
        "auto", description="What the UNet predicts; auto: what the base's scheduler says."
    )
    zero_terminal_snr: bool = Field(
        False, description="Rescale the noise schedule so that its last step is pure noise; needs v_prediction."
    )
    min_snr_gamma: float | None = Field(
        5.0,
        gt=0,
        description="γ of min-SNR weighting; none: all timesteps weigh the same; left out with "
        "debiased_estimation_loss or zero_terminal_snr: none.",
    )
    debiased_estimation_loss: bool = Field(
        False, description="Weigh losses by debiased estimation, 1/√SNR, in place of min-SNR."
    )
    noise_offset: float = Field(0.0, ge=0, le=1, description="Strength of noise that is constant over a channel.")
    multires_noise_discount: float = Field(
        0.0, ge=0, lt=1, description="Strength of each octave of coarser noise, relative to the finer one; 0: none."
    )
    input_perturbation: float = Field(
        0.0, ge=0, le=1, description="Strength of further noise that the UNet sees, but need not name; usually 0.1."
    )
    min_timestep: int = Field(0, ge=0, le=9999, description="The first timestep that is trained, of least noise.")
    max_timestep: int | None = Field(None, ge=0, le=9999, description="The last; none: the schedule's last.")
    huber_delta: float | None = Field(
        None, gt=0, description="δ beyond which errors count linearly; none: squared errors."
    )
    caption_dropout_rate: float = Field(
        0.05, ge=0, le=1, description="Share shown with an empty caption, where no cond_dropout.txt says otherwise."
    )
    shuffle_tags: bool = Field(
        False, description="Show what follows a caption's first comma in another order each time, tag by tag."
    )
    keep_tags: int = Field(0, ge=0, le=1000, description="Tags after a caption's first comma that are not shuffled.")
    ema_half_life_images: int | None = Field(
        None, ge=1, description="Half-life of averaged weights, in images; none: no average."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Order, noise, timesteps and dropout all derive from it.")

    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Of the arithmetic; auto: bf16 where there is a GPU that has it."
    )
    weight_dtype: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="As what weights are kept: bf16 halves them and their gradients, updates are rounded by chance; "
        "adapters are fp32 always.",
    )
    device: Annotated[str, NO_RECIPE] = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    gradient_checkpointing: bool = Field(False, description="Compute activations twice to save memory.")
    compile: bool = Field(
        False, description="Have torch compile the UNet, anew for each bucket: minutes at first, then faster on a GPU."
    )
    num_workers: Annotated[int, NO_RECIPE] = Field(4, ge=1, le=256, description="Threads that read and decode images.")
    latent_cache: Annotated[Path | None, NO_RECIPE] = Field(
        None, description="Where latents are kept; none: in .latents beside the run."
    )

    checkpoint_every_n_steps: Annotated[int, NO_RECIPE] = Field(
        500, ge=1, description="Optimizer steps between checkpoints."
    )
    checkpoints_total_limit: Annotated[int, NO_RECIPE] = Field(
        1, ge=1, description="Checkpoints kept, the newest; the best one is kept, too."
    )
    evaluate_every_n_steps: int = Field(
        500, ge=0, description="Optimizer steps between evaluations; 0: only before and after."
    )
    eval_timesteps: int = Field(8, ge=1, le=1000, description="Timesteps at which each held-out image is judged.")
    sample_every_n_steps: Annotated[int, NO_RECIPE] = Field(
        500, ge=0, description="Optimizer steps between samples; 0: only before and after."
    )
    sample_prompts: Annotated[list[str], NO_RECIPE] = Field(
        [], description="What the samples show; none given: captions of the folders."
    )
    sample_prompts_file: Annotated[Path | None, NO_RECIPE] = Field(
        None, description="A file with further prompts, one a line; it is read anew whenever samples are drawn."
    )
    sample_steps: Annotated[int, NO_RECIPE] = Field(25, ge=1, le=1000, description="Denoising steps a sample.")
    guidance_scale: Annotated[float, NO_RECIPE] = Field(
        7.5, ge=0, le=100, description="Classifier-free guidance of the samples."
    )
    log_every_n_steps: Annotated[int, NO_RECIPE] = Field(
        10, ge=1, description="Optimizer steps between looks at the losses, each of which waits."
    )

    wandb_project: Annotated[str | None, NO_RECIPE] = Field(
        None, description="A project of Weights & Biases that gets the logs too; needs the extra wandb."
    )

    @model_validator(mode="before")
    @classmethod
    def _what_follows(cls, given: Any) -> Any:
        """What a preset sets; then rates: adapters begin at nothing and learn at higher ones than weights do."""
        if not isinstance(given, dict):
            return given
        given = {**PRESETS.get(str(given.get("preset")), {}), **given}
        usual: dict[str, Any] = {"precision": "bf16"} if given.get("weight_dtype") == "bf16" else {}
        if given.get("optimizer") == "prodigy":
            usual |= {"learning_rate": 1.0, "text_encoder_learning_rate": 1.0}
        elif given.get("lora_rank"):
            usual |= {"learning_rate": 1e-4, "text_encoder_learning_rate": 5e-5}
        if given.get("debiased_estimation_loss") or given.get("zero_terminal_snr"):
            usual["min_snr_gamma"] = None
        return {**usual, **given}

    @field_validator("min_snr_gamma", mode="before")
    @classmethod
    def _none_in_words(cls, given: Any) -> Any:
        """A flag can't say null."""
        return None if given == "none" else given

    @model_validator(mode="after")
    def _sides_fit(self) -> "TrainConfig":
        if self.resolution % self.bucket_reso_steps:
            raise ValueError(
                f"resolution {self.resolution} is not a multiple of bucket_reso_steps {self.bucket_reso_steps}"
            )
        if self.pad_color and self.crop_jitter:
            raise ValueError("pad_color needs crop_jitter 0: images that are shown whole are not cropped")
        return self

    @model_validator(mode="after")
    def _terminal_snr_needs_v(self) -> "TrainConfig":
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError("zero_terminal_snr needs prediction_type v_prediction: pure noise says nothing of epsilon")
        if self.zero_terminal_snr and self.min_snr_gamma is not None:
            raise ValueError(
                "zero_terminal_snr needs min_snr_gamma none: min-SNR gives the step of pure noise no weight"
            )
        if self.zero_terminal_snr and self.debiased_estimation_loss:
            raise ValueError(
                "zero_terminal_snr needs debiased_estimation_loss off: it gives the step of pure noise no weight"
            )
        return self

    @model_validator(mode="after")
    def _optimizer_fits(self) -> "TrainConfig":
        if self.optimizer == "prodigy" and self.text_encoder_learning_rate not in (0, self.learning_rate):
            raise ValueError("prodigy knows one rate only; make text_encoder_learning_rate that of the UNet, or 0")
        if self.optimizer == "schedule_free" and (
            self.lr_scheduler != "constant" or self.ema_half_life_images is not None
        ):
            raise ValueError(
                "schedule_free needs lr_scheduler constant and ema_half_life_images none: it averages by itself"
            )
        if self.weight_dtype == "bf16":
            if self.precision != "bf16":
                raise ValueError("weight_dtype bf16 needs precision bf16")
            if self.optimizer in ("prodigy", "schedule_free") and self.lora_rank is None:
                raise ValueError(
                    f"{self.optimizer} needs weight_dtype fp32, or lora_rank: it looks at all weights at once"
                )
        return self

    @model_validator(mode="after")
    def _objective_fits(self) -> "TrainConfig":
        if self.debiased_estimation_loss and self.min_snr_gamma is not None:
            raise ValueError("debiased_estimation_loss needs min_snr_gamma none: either weighs the losses")
        if self.max_timestep is not None and self.max_timestep < self.min_timestep:
            raise ValueError(f"max_timestep {self.max_timestep} lies before min_timestep {self.min_timestep}")
        return self
