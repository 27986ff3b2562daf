"""Settings of the optimizer and of the learning rates."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from dreamloom.base.stage import NO_RECIPE, Group, StageConfig, changed_fields
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

_OPTIMIZER, _LEARNING_RATE = Group("Optimizer"), Group("Learning rate", is_early=True)


class OptimizerSettings(StageConfig):
    """The optimizer, and the learning rates."""

    optimizer: Annotated[OptimizerName, _OPTIMIZER] = Field(ADAMW.name, description=f"{describe_optimizers()}.")
    weight_decay: Annotated[float, _OPTIMIZER] = Field(
        0.01, ge=0, le=1, description="Decoupled weight decay; it is multiplied by the learning rate."
    )
    text_encoder_weight_decay: Annotated[float | None, _OPTIMIZER] = Field(
        None, ge=0, le=1, description="Weight decay of the text encoder; null: as weight_decay."
    )
    beta1: Annotated[float, _OPTIMIZER] = Field(
        0.9, ge=0, lt=1, description="Decay rate of the optimizer's average of the gradient, per step."
    )
    beta2: Annotated[float, _OPTIMIZER] = Field(
        0.999,
        ge=0,
        lt=1,
        description="Decay rate of its average of the squared gradient, per step; if not set, 0.99 with Lion, "
        "whose momentum it is.",
    )
    epsilon: Annotated[float, _OPTIMIZER] = Field(
        1e-8, gt=0, le=1, description="Added to the root of the average squared gradient before dividing by it."
    )
    max_grad_norm: Annotated[float | None, _OPTIMIZER] = Field(
        1.0, gt=0, description="Clip the gradient to this norm over all parameters; null: never."
    )
    fused_backward: Annotated[bool, NO_RECIPE, _OPTIMIZER] = Field(
        False,
        description="Step each weight in the backward pass, as soon as its gradient is known, so that never all "
        "gradients are in memory; with adamw or adafactor, without clipping and accumulation.",
    )
    ema_half_life_images: Annotated[int | None, _OPTIMIZER] = Field(
        None, ge=1, description="Half-life of an exponential moving average of the weights, in images; null: no EMA."
    )

    ema_warmup: Annotated[Literal["none", "ramp", "power"], _OPTIMIZER] = Field(
        "none",
        description="Let the average follow faster at first, so that little of the base stays in it. As diffusers: "
        "ramp (1 + n)/(10 + n), as its training scripts; power, its use_ema_warmup.",
    )
    ema_update_every_n_steps: Annotated[int, _OPTIMIZER] = Field(
        1, ge=1, description="Update the average every N optimizer steps; the half-life stays the same."
    )
    ema_on_cpu: Annotated[bool, NO_RECIPE, _OPTIMIZER] = Field(
        False, description="Keep the average in the CPU's memory; each update waits for the GPU."
    )

    learning_rate: Annotated[float, _LEARNING_RATE] = Field(
        2e-6,
        gt=0,
        le=10,
        description="Learning rate of the UNet; if not set, 1e-4 with lora_rank, and 1 with an optimizer that "
        "estimates its rate.",
    )
    text_encoder_learning_rate: Annotated[float, _LEARNING_RATE] = Field(
        5e-7,
        ge=0,
        le=10,
        description="Learning rate of the text encoder; 0: do not train it; if not set, 5e-5 with lora_rank, and 1 "
        "with an optimizer that estimates its rate.",
    )
    text_encoder_2_learning_rate: Annotated[float | None, _LEARNING_RATE] = Field(
        None,
        ge=0,
        le=10,
        description="Learning rate of the second text encoder, where there is one; 0: do not train it; null: as "
        "text_encoder_learning_rate.",
    )
    lr_scheduler: Annotated[LRSchedulerName, _LEARNING_RATE] = Field(
        "constant", description="Course of the learning rates over the run; all but constant fall to 0."
    )
    text_encoder_lr_scheduler: Annotated[LRSchedulerName | None, _LEARNING_RATE] = Field(
        None, description="Course of the text encoder's learning rate; null: as lr_scheduler."
    )
    lr_scheduler_num_cycles: Annotated[int, _LEARNING_RATE] = Field(
        1, ge=1, le=10_000, description="How often cosine_with_restarts begins anew at the full rate."
    )
    lr_scheduler_power: Annotated[float, _LEARNING_RATE] = Field(
        1.0, gt=0, le=100, description="Exponent of polynomial; 1: linear."
    )
    lr_warmup_images: Annotated[int, _LEARNING_RATE] = Field(
        0, ge=0, description="Number of images over which the learning rates rise from 0; a schedule goes on meanwhile."
    )

    def text_encoder_rate(self, name: str) -> float:
        """Returns the learning rate of a text encoder; 0: it is not trained."""
        own = self.text_encoder_2_learning_rate if name == "text_encoder_2" else None
        return self.text_encoder_learning_rate if own is None else own

    @model_validator(mode="after")
    def _check_optimizer(self) -> Self:
        kind = OPTIMIZERS[self.optimizer]
        for name in ("text_encoder", "text_encoder_2"):
            if kind.estimates_rate and self.text_encoder_rate(name) not in (0, self.learning_rate):
                raise ValueError(f"{kind.name} has one rate: set {name}_learning_rate to learning_rate, or to 0")
        if kind.estimates_rate and self.text_encoder_lr_scheduler not in (None, self.lr_scheduler):
            raise ValueError(f"{kind.name} has one rate: set text_encoder_lr_scheduler to null")
        schedules = {self.lr_scheduler, self.text_encoder_lr_scheduler} - {None, "constant"}
        if kind.average and (schedules or self.ema_half_life_images is not None):
            raise ValueError(
                f"{kind.name} needs lr_scheduler constant and ema_half_life_images null: it averages by itself"
            )
        for names, has in ((("beta1", "beta2"), kind.betas is not None), (("epsilon",), kind.has_epsilon)):
            if (changed := changed_fields(self, names)) and not has:
                raise ValueError(f"{kind.name} has no {changed[0]}: leave it out")
        return self
