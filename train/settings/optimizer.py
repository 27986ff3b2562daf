"""Settings of the optimizer and of the learning rates."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dreamloom.base.stage import Group, StageConfig
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

_OPTIMIZER, _LEARNING_RATE = Group("Optimizer"), Group("Learning rate")


class OptimizerSettings(StageConfig):
    """The optimizer, and the learning rates."""

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
