"""Settings of what is trained, and on what: the model, the images, their captions, the length of the run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from dreamloom.base.files.remote_files import SHARD_CACHE_GB
from dreamloom.base.images.buckets import read_folder_resolutions
from dreamloom.base.stage import BY_CONTENT, NO_RECIPE, Group, PathKind, StageConfig
from dreamloom.train.adapter_kinds import DORA, KINDS, LORA
from dreamloom.train.config_fields import (
    DATA,
    WRITTEN_NUMBER,
    BucketResoSteps,
    ClipSkip,
    FolderResolutions,
    Masks,
    MicroConditioning,
    PadColor,
    Resolution,
    TokenLimit,
    UnmaskedWeight,
    Upscale,
)

if TYPE_CHECKING:
    AdapterKindName = str  # mypy knows no choices that a registry makes
else:
    AdapterKindName = Literal[tuple(KINDS)]

_MODEL, _LENGTH = Group("Model", is_early=True), Group("Batches and length", is_early=True)
_ADAPTERS, _CAPTIONS = Group("Adapters (LoRA)"), Group("Captions")


class DataSettings(StageConfig):
    """The model, the images, their captions, the length of the run."""

    base: Annotated[str, PathKind.MODEL, BY_CONTENT, _MODEL] = Field(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        description="Model to start from: a diffusers folder, a .safetensors or .ckpt file, or a hub ID (owner/name).",
    )
    vae: Annotated[str | None, PathKind.MODEL, BY_CONTENT, _MODEL] = Field(
        None,
        description="Diffusers folder of an AutoencoderKL or AutoencoderTiny that replaces the base's VAE; null: the "
        "base's.",
    )
    vae_tiling: Annotated[bool, _MODEL] = Field(
        False,
        description="Encode and decode pictures larger than the VAE was made for in tiles, whose seams are blended: "
        "for several megapixels on small GPUs.",
    )
    clip_skip: ClipSkip = 1
    t5_length: TokenLimit = 256
    frozen: Annotated[list[str], _MODEL] = Field(
        [], description="Name patterns of parameters to leave untrained, such as unet.down_blocks.*."
    )

    lora_rank: Annotated[int | None, _ADAPTERS] = Field(
        None, ge=1, le=1024, description="Train LoRA adapters of this rank instead of the weights; null: the weights."
    )
    lora_alpha: Annotated[int | None, _ADAPTERS] = Field(
        None, ge=1, description="Scale adapters by alpha/rank; null: alpha equals the rank."
    )
    lora_kind: Annotated[AdapterKindName, _ADAPTERS] = Field(
        LORA.name,
        description="Kind of adapter: lora, dora (a LoRA and the norms of its weights), loha (Hadamard product of two) "
        "or lokr (Kronecker product).",
    )
    lora_convolutions: Annotated[bool, _ADAPTERS] = Field(
        False, description="Train adapters of the UNet's blocks of convolutions, too (LoCon)."
    )
    base_bits: Annotated[Literal[4, 8] | None, WRITTEN_NUMBER, _ADAPTERS] = Field(
        None,
        description="Store the denoiser's transformers in so many bits a weight, under LoRA or DoRA; needs the extra "
        "bitsandbytes. null: as weight_dtype says.",
    )
    base_on_cpu: Annotated[bool, NO_RECIPE, _ADAPTERS] = Field(
        False,
        description="Keep the denoiser's transformers in the CPU's memory, under adapters, and copy each layer to the "
        "GPU when it is needed: slow, but fits small GPUs.",
    )
    init_lora: Annotated[Path | None, BY_CONTENT, _ADAPTERS] = Field(
        None,
        description="LoRA file to start the adapters from, a .safetensors with kohya's or diffusers' names; its rank "
        "is at most lora_rank. null: adapters that change nothing at first.",
    )

    resolution: Resolution = 512
    folder_resolutions: FolderResolutions = Field(default=[])
    bucket_reso_steps: BucketResoSteps = 64
    upscale: Upscale = True
    pad_color: PadColor = None
    masks: Masks = "files"
    unmasked_weight: UnmaskedWeight = 0.1
    micro_conditioning: MicroConditioning = "images"
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
    kohya_repeats: Annotated[bool, DATA] = Field(
        False,
        description="Multiply images by the number in their folder's name, as kohya's scripts do (10_cat: 10 times).",
    )
    latent_cache: Annotated[Path | None, PathKind.OUTPUT, NO_RECIPE, DATA] = Field(
        None, description="Folder for cached latents; null: .latents beside the run."
    )
    shard_cache_gb: Annotated[float, NO_RECIPE, DATA] = Field(
        SHARD_CACHE_GB,
        ge=0,
        description="Gigabytes of shards to keep on this machine that lie at an address (s3://…), in the user's cache; "
        "what is not there is asked for image by image.",
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
        20, ge=1, le=100_000, description="Number of passes over the training folder, if max_train_steps is not set."
    )
    max_train_steps: Annotated[int | None, _LENGTH] = Field(
        None, ge=1, description="Number of optimizer steps, whatever `epochs` says; null: as many as these take."
    )
    seed: Annotated[int, _LENGTH] = Field(
        0, ge=0, lt=2**63, description="Seed of the image order, noise, timesteps and dropout."
    )

    @model_validator(mode="after")
    def _check_buckets(self) -> Self:
        if self.resolution % self.bucket_reso_steps:
            raise ValueError(
                f"resolution {self.resolution} is not a multiple of bucket_reso_steps {self.bucket_reso_steps}"
            )
        step = self.bucket_reso_steps
        for name, side in read_folder_resolutions(self.folder_resolutions).items():
            if side % step:
                raise ValueError(f"folder_resolutions: {side} of {name} is not a multiple of bucket_reso_steps {step}")
        if self.pad_color and self.crop_jitter:
            raise ValueError("pad_color needs crop_jitter 0: padded images are not cropped")
        return self

    @model_validator(mode="after")
    def _check_adapters(self) -> Self:
        if self.init_lora is not None and self.lora_rank is None:
            raise ValueError("init_lora needs lora_rank: it starts adapters of that rank")
        if self.base_bits is not None and self.lora_kind not in (LORA.name, DORA.name):
            raise ValueError(f"base_bits needs lora_kind lora or dora: {self.lora_kind} is not computed with it")
        if self.base_on_cpu and (self.lora_kind == DORA.name or self.base_bits):
            raise ValueError("base_on_cpu needs base_bits null, and another lora_kind than dora")
        if self.init_lora is not None and self.frozen:
            raise ValueError("init_lora needs frozen empty: checkpoints hold only the adapters that are trained")
        return self
