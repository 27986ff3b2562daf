"""Config of evaluate."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dreamloom.base.stage import NO_RECIPE, Group, PathKind, StageConfig
from dreamloom.train.config import TrainConfig, shared_settings

_DATA, _EVALUATION, _HARDWARE = Group("Data and buckets"), Group("Evaluation"), Group("Precision and hardware")


class EvaluateConfig(StageConfig):
    """Settings of an evaluation. They carry the names of the training settings that they correspond to."""

    resolution: Annotated[int, _DATA] = Field(
        512, ge=32, le=4096, description="Side of the square bucket, in pixels; no bucket has a larger area."
    )
    bucket_reso_steps: Annotated[int, _DATA] = Field(
        64, ge=8, le=256, description="Bucket sides are multiples of this, in pixels."
    )
    upscale: Annotated[bool, _DATA] = Field(
        True, description="Enlarge images smaller than their bucket; if off, choose a bucket that they fill."
    )
    pad_color: Annotated[str | None, _DATA] = Field(
        None,
        pattern="^#[0-9a-fA-F]{6}$",
        description="Pad whole images with this color, such as #ffffff, instead of cropping them; null: crop.",
    )
    latent_cache: Annotated[Path | None, PathKind.OUTPUT, NO_RECIPE, _DATA] = Field(
        None, description="Folder for cached latents; null: in memory."
    )

    eval_timesteps: Annotated[int, _EVALUATION] = Field(
        8, ge=1, le=1000, description="Number of timesteps at which each image is evaluated, one per stratum."
    )
    seed: Annotated[int, _EVALUATION] = Field(0, ge=0, lt=2**63, description="Seed of the noise and the timesteps.")
    vae: Annotated[str | None, PathKind.MODEL, _EVALUATION] = Field(
        None, description="VAE that replaces the base's, for both models; null: the run's, or the base's."
    )
    use_ema: Annotated[bool, _EVALUATION] = Field(
        True, description="Evaluate a checkpoint's averaged weights if it has them."
    )

    batch_size: Annotated[int, NO_RECIPE, _HARDWARE] = Field(4, ge=1, le=4096, description="Images per forward pass.")
    precision: Annotated[Literal["auto", "fp32", "bf16"], _HARDWARE] = Field(
        "auto", description="Arithmetic; auto: bf16 on a GPU that supports it, else fp32."
    )
    device: Annotated[str, NO_RECIPE, _HARDWARE] = Field(
        "auto", description="auto, cpu, cuda, cuda:1 or mps; auto: a GPU if there is one."
    )
    num_workers: Annotated[int, NO_RECIPE, _HARDWARE] = Field(
        4, ge=1, le=256, description="Threads that decode images."
    )


def as_trained(train: TrainConfig, given: EvaluateConfig | None = None) -> EvaluateConfig:
    """Returns an evaluation with the settings of a training run, except for those set explicitly in `given`."""
    given = given or EvaluateConfig()
    values = shared_settings(train, EvaluateConfig)
    return given.model_copy(update={name: values[name] for name in values.keys() - given.model_fields_set})
