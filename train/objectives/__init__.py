"""What a model is trained to do: a run's loss is the sum of its objectives.

A new one is a file beside these, and a line in OBJECTIVES.
"""

from collections.abc import Callable, Mapping
from functools import cache

from dreamloom.train.config import TrainConfig
from dreamloom.train.model.model import Model
from dreamloom.train.objectives.denoising import make_denoising
from dreamloom.train.objectives.l2_sp import make_l2_sp
from dreamloom.train.objectives.objective import MakeTeacher, Objective, Teacher
from dreamloom.train.objectives.output_preservation import make_blank_preservation, make_class_preservation
from dreamloom.train.objectives.prior_prediction import make_prior_prediction
from dreamloom.train.objectives.teacher import BaseModelTeacher

OBJECTIVES: Mapping[str, Callable[[TrainConfig, Model, MakeTeacher], Objective | None]] = {
    "denoising": make_denoising,
    "prior_prediction": make_prior_prediction,
    "class_preservation": make_class_preservation,
    "blank_preservation": make_blank_preservation,
    "l2_sp": make_l2_sp,
}
"""Name → what makes the objective, before the first step; None where the config does not ask for it."""


def make_objectives(config: TrainConfig, model: Model) -> dict[str, Objective]:
    """Makes the objectives that a config asks for.

    Args:
        config: the run's.
        model: the model before the first step, with the parameters that are trained.

    Returns:
        Name → objective.
    """

    @cache
    def teacher() -> Teacher:
        return BaseModelTeacher(model, config)

    made = {name: make(config, model, teacher) for name, make in OBJECTIVES.items()}
    return {name: objective for name, objective in made.items() if objective is not None}
