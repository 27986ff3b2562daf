"""Config of evaluate."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.stage import NO_RECIPE, Group, PathKind, StageConfig, recipe_values
from dreamloom.train.config import TrainConfig, shared_settings
from dreamloom.train.config_fields import (
    DATA,
    EVALUATION,
    HARDWARE,
    BucketResoSteps,
    ClipSkip,
    FolderResolutions,
    Masks,
    MicroConditioning,
    NumWorkers,
    PadColor,
    Precision,
    Resolution,
    TokenLimit,
    TrainDevice,
    UnmaskedWeight,
    Upscale,
)
from dreamloom.train.settings.run import SamplerName

VERSION = 2
"""Raised when evaluate would give other losses for the same config, images and models."""


class EvaluateConfig(StageConfig):
    """Settings of an evaluation. They carry the names of the training settings that they correspond to."""

    clip_skip: ClipSkip = 1
    t5_length: TokenLimit = 256

    resolution: Resolution = 512
    folder_resolutions: FolderResolutions = Field(default=[])
    bucket_reso_steps: BucketResoSteps = 64
    upscale: Upscale = True
    pad_color: PadColor = None
    masks: Masks = "files"
    unmasked_weight: UnmaskedWeight = 0.1
    micro_conditioning: MicroConditioning = "images"
    latent_cache: Annotated[Path | None, PathKind.OUTPUT, NO_RECIPE, DATA] = Field(
        None, description="Folder for cached latents; null: in memory."
    )

    eval_timesteps: Annotated[int, EVALUATION] = Field(
        8, ge=1, le=1000, description="Number of timesteps at which each image is evaluated, one per stratum."
    )
    seed: Annotated[int, EVALUATION] = Field(0, ge=0, lt=2**63, description="Seed of the noise and the timesteps.")
    vae: Annotated[str | None, PathKind.MODEL, EVALUATION] = Field(
        None, description="VAE that replaces the base's, for both models; null: the run's, or the base's."
    )
    use_ema: Annotated[bool, EVALUATION] = Field(
        True, description="Evaluate a checkpoint's averaged weights if it has them."
    )

    batch_size: Annotated[int, NO_RECIPE, HARDWARE] = Field(4, ge=1, le=4096, description="Images per forward pass.")
    precision: Precision = "auto"
    device: TrainDevice = "auto"
    num_workers: NumWorkers = 4


def as_trained(train: TrainConfig | None, given: EvaluateConfig | None = None) -> EvaluateConfig:
    """Returns an evaluation with the settings of a training run, if any, except for those set explicitly in `given`."""
    given = given or EvaluateConfig()
    if train is None:
        return given
    values = shared_settings(train, EvaluateConfig)
    return given.model_copy(update={name: values[name] for name in values.keys() - given.model_fields_set})


def hashed_settings(config: EvaluateConfig) -> dict[str, Any]:
    """Returns the settings of an evaluation as recipes hash them: a VAE counts by its content, wherever it lies."""
    return recipe_values(config) | {"vae": config.vae and fingerprint(config.vae)}


_SAMPLES = Group("Samples")


class SampleConfig(StageConfig):
    """Settings of drawing from a trained model. They carry the names of the training settings that they correspond to.

    What is null is as in the run; for a model that is no run of ours, as a new run would have it.
    """

    prompts: Annotated[list[str], _SAMPLES] = Field(
        [], description="Prompts, with sd-scripts' options (--n --w --h --d --s --l --ss); none: those of the run."
    )
    prompts_file: Annotated[Path | None, _SAMPLES] = Field(
        None, description="File with further prompts: one a line, or EveryDream 2's sample_prompts.json."
    )
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], _SAMPLES] = Field(
        [0], min_length=1, description="Seeds; each prompt is drawn from the noise of each."
    )
    checkpoints: Annotated[list[int], _SAMPLES] = Field(
        [], description="Checkpoints of the run, by the images seen; none: all that it keeps."
    )
    base: Annotated[str | None, PathKind.MODEL, _SAMPLES] = Field(
        None, description="Model that is drawn above, to compare; null: the run's base."
    )
    negative_prompt: Annotated[str | None, _SAMPLES] = Field(None, description="What the images should not show.")
    resolution: Annotated[int | None, _SAMPLES] = Field(
        None, ge=32, le=4096, description="Side of the images, in pixels."
    )
    sample_steps: Annotated[int | None, _SAMPLES] = Field(None, ge=1, le=1000, description="Denoising steps per image.")
    guidance_scale: Annotated[float | None, _SAMPLES] = Field(
        None, ge=0, le=100, description="Classifier-free guidance scale."
    )
    scheduler: Annotated[SamplerName | None, _SAMPLES] = Field(None, description="Scheduler that draws.")
    use_ema: Annotated[bool, _SAMPLES] = Field(True, description="Draw with averaged weights where they were kept.")

    batch_size: Annotated[int, HARDWARE] = Field(4, ge=1, le=4096, description="Images per forward pass.")
    precision: Precision = "auto"
    device: TrainDevice = "auto"
