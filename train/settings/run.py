"""Settings of how a run is computed, and what it leaves behind."""

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dreamloom.base.stage import NO_RECIPE, Group, StageConfig
from dreamloom.train.config_fields import EVALUATION, HARDWARE, NumWorkers, Precision, TrainDevice
from dreamloom.train.samplers import SAMPLERS

if TYPE_CHECKING:
    SamplerName = str  # mypy knows no choices that a registry makes
else:
    SamplerName = Literal[tuple(SAMPLERS)]

_CHECKPOINTS, _SAMPLES, _LOGGING = Group("Checkpoints"), Group("Samples"), Group("Logging")


class RunSettings(StageConfig):
    """The hardware; checkpoints, evaluations, samples and logs."""

    preset: Annotated[Literal["8gb", "12gb", "16gb", "24gb", "48gb", "80gb"] | None, NO_RECIPE, HARDWARE] = Field(
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
    shard: Annotated[bool, NO_RECIPE, HARDWARE] = Field(
        False,
        description="Share the weights that learn, their gradients and the optimizer's state among several processes "
        "(FSDP2), for full fine-tunes that one GPU can't hold; with adamw or lion.",
    )
    compile: Annotated[bool, HARDWARE] = Field(
        False, description="Compile the UNet with torch.compile: takes minutes for each bucket, then speeds up a GPU."
    )
    num_workers: NumWorkers = 4

    checkpoint_every_n_steps: Annotated[int, NO_RECIPE, _CHECKPOINTS] = Field(
        500, ge=0, description="Save a checkpoint every N optimizer steps; 0: not by steps."
    )
    checkpoint_every_n_epochs: Annotated[int, NO_RECIPE, _CHECKPOINTS] = Field(
        0, ge=0, description="Save a checkpoint after every N epochs; 0: not by epochs."
    )
    checkpoint_every_n_minutes: Annotated[float, NO_RECIPE, _CHECKPOINTS] = Field(
        10.0, ge=0, description="Save a checkpoint if the last one is N minutes old, which a kill would cost; 0: never."
    )
    checkpoint_single_file: Annotated[bool, NO_RECIPE, _CHECKPOINTS] = Field(
        False,
        description="Export each checkpoint to models/ of the run as one .safetensors in half precision, ready to use; "
        "all are kept. Takes the time and memory of an export.",
    )
    checkpoints_total_limit: Annotated[int, NO_RECIPE, _CHECKPOINTS] = Field(
        1, ge=1, description="Number of newest checkpoints to keep; the best one is kept too."
    )

    held_out: Annotated[float, EVALUATION] = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of each folder's images to hold out of training, to measure what is learned, and what is "
        "forgotten of ground_truth, unless a folder of held-out images is given; 0: none.",
    )
    evaluate_every_n_steps: Annotated[int | None, EVALUATION] = Field(
        None,
        ge=0,
        description="Evaluate every N optimizer steps; 0: only before and after training; null: about ten times a run, "
        "and no oftener than every 50 steps.",
    )
    eval_timesteps: Annotated[int, EVALUATION] = Field(
        8, ge=1, le=1000, description="Number of timesteps at which each held-out image is evaluated."
    )

    sample_every_n_steps: Annotated[int | None, NO_RECIPE, _SAMPLES] = Field(
        None,
        ge=0,
        description="Draw samples every N optimizer steps; 0: only before and after training; null: about ten times a "
        "run, and no oftener than every 50 steps.",
    )
    sample_prompts: Annotated[list[str], NO_RECIPE, _SAMPLES] = Field(
        [],
        description="Prompts of the samples, with sd-scripts' options (--n --w --h --d --s --l --ss); none: some "
        "captions of each training folder.",
    )
    sample_prompts_file: Annotated[Path | None, NO_RECIPE, _SAMPLES] = Field(
        None,
        description="File with further prompts, in any encoding: one a line, or EveryDream 2's sample_prompts.json; "
        "read again each time samples are drawn.",
    )
    sample_negative_prompt: Annotated[str, NO_RECIPE, _SAMPLES] = Field(
        "", description="What the samples should not show, where a prompt says nothing else."
    )
    sample_scheduler: Annotated[SamplerName | None, NO_RECIPE, _SAMPLES] = Field(
        None, description="Scheduler that draws the samples; null: the base's."
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


_FEWEST_STEPS = 50
_EARLY = (8, 4, 2)


def steps_between(every_n_steps: int | None, num_steps: int) -> int:
    """Returns after how many steps something is due: as a config says, or for None about ten times a run; 0: never."""
    return max(_FEWEST_STEPS, ceil(num_steps / 10)) if every_n_steps is None else every_n_steps


def early_steps(every_n_steps: int) -> tuple[int, ...]:
    """Returns the steps of the further evaluations, before the first one, of a run that finds its ratio.

    The shock of the first steps makes a model forget most, so they come while little is shown.
    """
    return tuple(sorted({every_n_steps // part for part in _EARLY} - {0, every_n_steps}))
