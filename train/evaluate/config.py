"""Config of evaluate."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dreamloom.base.stage import NO_RECIPE, PathKind, StageConfig
from dreamloom.train.config import TrainConfig, shared_settings
from dreamloom.train.config_fields import (
    DATA,
    EVALUATION,
    HARDWARE,
    BucketResoSteps,
    ClipSkip,
    Masks,
    NumWorkers,
    PadColor,
    Precision,
    Resolution,
    TrainDevice,
    UnmaskedWeight,
    Upscale,
)


class EvaluateConfig(StageConfig):
    """Settings of an evaluation. They carry the names of the training settings that they correspond to."""

    clip_skip: ClipSkip = 1

    resolution: Resolution = 512
    bucket_reso_steps: BucketResoSteps = 64
    upscale: Upscale = True
    pad_color: PadColor = None
    masks: Masks = "files"
    unmasked_weight: UnmaskedWeight = 0.1
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


def as_trained(train: TrainConfig, given: EvaluateConfig | None = None) -> EvaluateConfig:
    """Returns an evaluation with the settings of a training run, except for those set explicitly in `given`."""
    given = given or EvaluateConfig()
    values = shared_settings(train, EvaluateConfig)
    return given.model_copy(update={name: values[name] for name in values.keys() - given.model_fields_set})
