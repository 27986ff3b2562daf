"""Config of audit."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from dreamloom.base.stage import BY_CONTENT, NO_RECIPE, Group, PathKind, Recipe, StageConfig
from dreamloom.train.config_fields import (
    HARDWARE,
    BucketResoSteps,
    ClipSkip,
    NumWorkers,
    Precision,
    Resolution,
    TokenLimit,
    TrainDevice,
)

_ALL, _DRIFT, _CLASSES, _PICTURES = Group("All parts"), Group("Drift"), Group("Classes"), Group("Pictures")
DRIFT, CLASSES, PICTURES = Recipe("audit drift"), Recipe("audit classes"), Recipe("audit pictures")
"""Recipes of the parts of an audit: a change of one part's settings leaves the others as they are."""


class AuditConfig(StageConfig):
    """Settings of an audit. The defaults are the cheap ones: minutes on a GPU."""

    clip_skip: ClipSkip = 1
    t5_length: TokenLimit = 256
    resolution: Resolution = 512
    seed: Annotated[int, _ALL] = Field(0, ge=0, lt=2**63, description="Seed of all noise and of what is chosen.")
    use_ema: Annotated[bool, _ALL] = Field(True, description="Audit a checkpoint's averaged weights if it has them.")

    vocabulary: Annotated[Path | None, BY_CONTENT, _DRIFT] = Field(
        None,
        description="File of prompts, one a line, whose drift is measured; null: things, styles and media that come "
        "with dreamloom, then ImageNet's names.",
    )
    max_concepts: Annotated[int | None, DRIFT, _DRIFT] = Field(
        120, ge=1, description="Measure the first so many prompts of the vocabulary; null: all."
    )
    drift_latents: Annotated[int, DRIFT, _DRIFT] = Field(
        6,
        ge=1,
        le=1000,
        description="Latents that both models draw of each prompt; with fewer than 5, nothing is sure.",
    )
    drift_sample_steps: Annotated[int, DRIFT, _DRIFT] = Field(
        10, ge=1, le=1000, description="Denoising steps per latent."
    )

    class_prompt: Annotated[str, CLASSES, _CLASSES] = Field(
        "a photo of {a} {name}", description="Prompt of a class; {a} is a or an, {name} is the class."
    )
    images_per_class: Annotated[int | None, CLASSES, _CLASSES] = Field(
        8, ge=1, description="Images of each class to classify, chosen by the seed; null: all."
    )
    num_choices: Annotated[int | None, CLASSES, _CLASSES] = Field(
        10,
        ge=2,
        description="Classes that an image is told apart from, its own ones among them, the others chosen by the seed; "
        "null: all.",
    )
    class_timesteps: Annotated[int, CLASSES, _CLASSES] = Field(
        8, ge=1, le=1000, description="Noise levels of each round, after which a third of the classes is left."
    )
    bucket_reso_steps: Annotated[BucketResoSteps, CLASSES] = 64

    num_pictures: Annotated[int, PICTURES, _PICTURES] = Field(
        24, ge=0, description="Pictures that each model draws, of prompts spread over the vocabulary; 0: none."
    )
    sample_steps: Annotated[int, PICTURES, _PICTURES] = Field(
        25, ge=1, le=1000, description="Denoising steps per picture."
    )
    guidance_scale: Annotated[float, PICTURES, _PICTURES] = Field(
        7.5, ge=0, le=100, description="Classifier-free guidance scale of pictures and latents."
    )
    clip: Annotated[str | None, PathKind.MODEL, BY_CONTENT, _PICTURES] = Field(
        None,
        description="CLIP that compares the pictures: an open_clip model name, hf-hub:ID, or a folder; null: none.",
    )
    clip_pretrained: Annotated[str, PathKind.MODEL, BY_CONTENT, _PICTURES] = Field(
        "openai", description="Weights of a CLIP given by name: an open_clip tag, or a file."
    )

    batch_size: Annotated[int, NO_RECIPE, HARDWARE] = Field(16, ge=1, le=4096, description="Images per forward pass.")
    precision: Precision = "auto"
    device: TrainDevice = "auto"
    num_workers: NumWorkers = 4

    @field_validator("class_prompt")
    @classmethod
    def _has_no_other_fields(cls, prompt: str) -> str:
        try:
            prompt.format(a="a", name="tench")
        except (LookupError, ValueError) as error:
            raise ValueError("may hold {a} and {name}, and no other braces") from error
        return prompt
