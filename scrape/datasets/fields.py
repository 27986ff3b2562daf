"""Fields that the configs of several kinds of source share, and the groups that their fields are in."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from dreamloom.base.stage import Group

IMAGES, CAPTIONS, PROVENANCE = Group("Images"), Group("Captions"), Group("Provenance")
"""The groups of the fields of all kinds of source."""

UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path in a config, which may begin with ~."""

Limit = Annotated[int | None, IMAGES, Field(ge=1, description="Maximum number of images, the first ones; null: all.")]
PartRows = Annotated[int, IMAGES, Field(ge=1, description="Images per part, the unit of work and of resume.")]
