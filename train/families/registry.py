"""The families of models that can be trained. A new one is a package beside these, and a line here."""

from collections.abc import Mapping

from dreamloom.train.families.sd.family import SD
from dreamloom.train.families.sd3.family import SD3
from dreamloom.train.families.sdxl.family import SDXL
from dreamloom.train.model.family import Family

_FAMILIES: tuple[Family, ...] = (SD3, SDXL, SD)

FAMILIES: Mapping[str, Family] = {family.name: family for family in _FAMILIES}
"""Name → family."""
