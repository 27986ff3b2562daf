"""Fields that the configs of several kinds of source share, and the groups that their fields are in."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from dreamloom.base.images.large_images import OWN_MAX_PIXELS
from dreamloom.base.stage import BY_CONTENT, Group, StageConfig
from dreamloom.base.text import is_utf8

IMAGES, CAPTIONS, PROVENANCE = Group("Images"), Group("Captions"), Group("Provenance")
"""The groups of the fields of all kinds of source."""


def _user_path(path: Path) -> Path:
    if not is_utf8(str(path)):  # a config is stored as JSON with what it made
        raise ValueError("the path is not UTF-8; rename the folder")
    return path.expanduser()


UserPath = Annotated[Path, AfterValidator(_user_path), BY_CONTENT]
"""A path in a config, which may begin with ~. What lies there counts, not where it is: sources may be moved."""
OptionalPath = Annotated[Path | None, AfterValidator(lambda path: path and _user_path(path)), BY_CONTENT]
"""The same, or null."""

Limit = Annotated[int | None, IMAGES, Field(ge=1, description="Maximum number of images, the first ones; null: all.")]
PartRows = Annotated[int, IMAGES, Field(ge=1, description="Images per part, the unit of work and of resume.")]

CaptionColumn = Annotated[
    str | None,
    CAPTIONS,
    Field(description="Column of captions, or a field of one (caption.en); null: text, caption, … if one exists."),
]
WhoseCaptions = Annotated[
    Literal["human", "alt", "model", "none"],
    CAPTIONS,
    Field(
        description="Who wrote the captions: human, people, for these images; alt, web pages (LAION and its like); "
        "model, a captioning model; none leaves them out."
    ),
]
KeepEmpty = Annotated[
    bool,
    CAPTIONS,
    Field(
        description="Take a blank caption as it is, and train on its image without one; else it counts as none, and "
        "the captioning model writes one."
    ),
]


class SourceConfig(StageConfig):
    """What all sources of images on this machine have in common."""

    max_pixels: Annotated[int, IMAGES] = Field(
        OWN_MAX_PIXELS,
        ge=1,
        description="Maximum pixels of an image, checked before it is decoded. The sides of images of more than "
        "89,478,485 are halved, once or more.",
    )
    keep_exif: Annotated[bool, IMAGES] = Field(
        False,
        description="Keep GPS positions and serial numbers of cameras in the metadata of stored images; the originals "
        "keep theirs anyway.",
    )


class FilesConfig(SourceConfig):
    """What sources whose images are files of their own have in common."""

    link: Annotated[bool, IMAGES] = Field(
        False,
        description="Store images as hard links to your files, which costs no space: a program that writes into an "
        "image of the collection or the dataset then changes your original. Else they are copies, which share their "
        "space on btrfs and XFS.",
    )


class FolderSourceConfig(FilesConfig):
    """What sources that search a folder have in common."""

    follow_links: Annotated[bool, IMAGES] = Field(
        False, description="Also search folders outside `path` to which links in it lead."
    )
