"""Config of tune."""

from typing import Annotated

from pydantic import Field

from dreamloom.base.stage import Group, StageConfig

_PROBES = Group("Probes")


class TuneConfig(StageConfig):
    """Settings of tune: which ratios are probed, and for how long each."""

    ratios: Annotated[list[Annotated[float, Field(ge=0, le=1000)]], _PROBES] = Field(
        [0.0, 0.25, 0.5, 1.0, 2.0],
        min_length=1,
        description="Ratios to probe: images of ground truth shown for each other image; 0: none.",
    )
    prior_prediction_weights: Annotated[list[Annotated[float, Field(gt=0, le=1)]], _PROBES] = Field(
        [],
        description="Probe each ratio with prior prediction on all ground truth, too, at each of these weights; none: "
        "as the run's config says, alone.",
    )
    share: Annotated[float, _PROBES] = Field(
        0.25,
        gt=0,
        le=1,
        description="Length of a probe: the share that it shows of the images beside ground truth that a run shows; "
        "the learning rate's warm-up is as much shorter.",
    )
