"""The train section of a project, which also says when a new run is worth its time."""

from typing import Annotated

from pydantic import Field

from dreamloom.base.stage import NO_RECIPE, Group, StageConfig
from dreamloom.train.config import TrainConfig


class WhenConfig(StageConfig):
    """When a project is trained again, after its first run."""

    new_images: Annotated[int, NO_RECIPE] = Field(
        1, ge=1, description="Train again when so many images are new since the last finished run."
    )


class ProjectTrainConfig(TrainConfig):
    """How a project is trained, and when."""

    when: Annotated[WhenConfig | None, NO_RECIPE, Group("Schedule")] = Field(
        None, description="When a project that has a finished run is trained again; null: after any change."
    )
