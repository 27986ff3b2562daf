"""Settings of how much a run may forget, and of when it has learned enough."""

from fractions import Fraction
from typing import Annotated

from pydantic import Field

from dreamloom.base.stage import BY_CONTENT, Group, PathKind, StageConfig

_LIMITS = Group("Limits")

LEAST_RATIO, MOST_RATIO = Fraction(1, 8), Fraction(4)
"""Between these is a ratio of ground truth to other images that a run chooses by itself."""
LEAST_RATE = Fraction(1, 8)
"""Part of its learning rates to which such a run may go down."""


class LimitSettings(StageConfig):
    """Which checkpoint is kept as the best, and when a run ends early. All are off by default."""

    limit_mean: Annotated[float | None, _LIMITS] = Field(
        None,
        gt=0,
        le=10,
        description="Most that the best checkpoint may have forgotten on average, as a share of the base's loss (0.02 "
        "is 2 %), of what is rehearsed and of witnesses each; null: any.",
    )
    limit_worst: Annotated[float | None, _LIMITS] = Field(
        None,
        gt=0,
        le=10,
        description="Most that it may have forgotten of any source or concept that is surely forgotten; null: any.",
    )
    patience: Annotated[int, _LIMITS] = Field(
        0, ge=0, description="End the run when so many evaluations in a row bring no better checkpoint; 0: never."
    )
    likeness_clip: Annotated[str | None, PathKind.MODEL, BY_CONTENT, _LIMITS] = Field(
        None,
        description="Judge what is learned by images, too: a CLIP, such as a folder with open_clip_config.json, "
        "compares what is drawn at each evaluation with the held-out training images; null: by the loss alone.",
    )
    auto_ratio: Annotated[bool, _LIMITS] = Field(
        False,
        description="Move the share of ground_truth at each evaluation, from 1:8 to 4:1, to hold the limits with as "
        "little of it as may be, and lower the learning rates where that is not enough; in a project: what "
        "balance.ratio auto turns on.",
    )

    @property
    def needs_concepts(self) -> bool:
        """Whether it depends on what held-out images show which checkpoint is kept, or what is trained on."""
        return self.limit_worst is not None or self.auto_ratio
