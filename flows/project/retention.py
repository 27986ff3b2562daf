"""What `dreamloom clean` keeps."""

from typing import Annotated

from pydantic import Field

from dreamloom.base.stage import NO_RECIPE, StageConfig


class RetentionConfig(StageConfig):
    """How long `dreamloom clean` keeps what no longer belongs to the project."""

    days: Annotated[float, NO_RECIPE] = Field(
        30,
        ge=0,
        description="Days to keep collections of sources that are gone, unused latents and cached tables, and logs.",
    )
