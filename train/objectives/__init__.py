"""What a model is trained to do: a run's loss is the sum of its objectives.

A new one is a file beside these, and a line in OBJECTIVES.
"""

from collections.abc import Callable, Mapping

from dreamloom.train.config import TrainConfig
from dreamloom.train.model.model import Model
from dreamloom.train.objectives.denoising import make_denoising
from dreamloom.train.objectives.objective import Objective

OBJECTIVES: Mapping[str, Callable[[TrainConfig, Model], Objective | None]] = {"denoising": make_denoising}
"""Name → what makes the objective, before the first step; None where the config does not ask for it."""


def make_objectives(config: TrainConfig, model: Model) -> dict[str, Objective]:
    """Makes the objectives that a config asks for.

    Args:
        config: the run's.
        model: the model before the first step, with the parameters that are trained.

    Returns:
        Name → objective.
    """
    made = {name: make(config, model) for name, make in OBJECTIVES.items()}
    return {name: objective for name, objective in made.items() if objective is not None}
