"""Config of compress: what the images of the new folder are like."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dreamloom.base.images.large_images import OWN_MAX_PIXELS
from dreamloom.base.stage import Group, StageConfig

MAX_MEGAPIXELS = 1.5
"""What is asked of an image where neither size nor megapixels are; EveryDream's compress_img has the same."""

_SIZE, _FILE = Group("Size"), Group("File")
_SIZE_PATTERN = re.compile(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?")


class CompressConfig(StageConfig):
    """How the images of a folder are compressed. No image is ever enlarged."""

    megapixels: Annotated[float | None, _SIZE] = Field(
        None,
        ge=0,
        description="Maximum million pixels of an image; 0: any number. By default 1.5, or what resize or crop allows.",
    )
    resize: Annotated[str | None, _SIZE] = Field(
        None, description="Width and height that images have to fit into, such as 1024x768; 1024 is 1024x1024."
    )
    crop: Annotated[str | None, _SIZE] = Field(
        None,
        description="Cut the middle of each image to this shape, and shrink it to this size, such as 768x512; smaller "
        "images are only cut.",
    )
    pad: Annotated[str | None, _SIZE] = Field(
        None,
        description="Color (white, #808080) around images that do not fill resize: all get exactly that size.",
    )
    format: Annotated[Literal["webp", "jpeg", "avif", "png"], _FILE] = Field(
        "webp", description="Format of the images. JPEG has no transparency: it becomes white, or the color of pad."
    )
    quality: Annotated[int, _FILE] = Field(95, ge=1, le=100, description="Quality of webp, jpeg and avif.")
    keep_exif: Annotated[bool, _FILE] = Field(
        False,
        description="Keep the EXIF (camera, date, place); else it goes. A refusal of training stays in either case.",
    )
    max_pixels: Annotated[int, _FILE] = Field(
        OWN_MAX_PIXELS, ge=1, description="Maximum pixels of an original, checked before it is decoded."
    )

    @field_validator("resize", "crop")
    @classmethod
    def _is_size(cls, value: str | None) -> str | None:
        if value is not None and _SIZE_PATTERN.fullmatch(value) is None:
            raise ValueError(f"{value} is no size; write 1024x768 or 1024")
        return value

    @field_validator("pad")
    @classmethod
    def _is_color(cls, value: str | None) -> str | None:
        if value is not None:
            from PIL import ImageColor

            ImageColor.getrgb(value)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "CompressConfig":
        if self.crop and (self.resize or self.pad):
            raise ValueError("crop fills its size; leave out resize and pad")
        if self.pad and not self.resize:
            raise ValueError("pad needs resize, the size to fill")
        canvas, area = parse_size(self.resize), max_area(self)
        if self.pad and canvas and area and canvas[0] * canvas[1] > area:
            raise ValueError(f"pad makes all images {self.resize}, which is more than {self.megapixels} megapixels")
        return self

    @property
    def background(self) -> tuple[int, int, int]:
        """RGB color of `pad`, or white."""
        from PIL import ImageColor

        red, green, blue = ImageColor.getrgb(self.pad or "white")[:3]
        return red, green, blue


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Returns the width and height of `resize` or `crop`; None: there is none."""
    match = _SIZE_PATTERN.fullmatch(text or "")
    return (int(match[1]), int(match[2] or match[1])) if match else None


def max_area(config: CompressConfig) -> int | None:
    """Returns the maximum pixels of an image; None: any number."""
    megapixels = config.megapixels
    if megapixels is None:
        megapixels = 0 if config.resize or config.crop else MAX_MEGAPIXELS
    return max(1, int(megapixels * 1_000_000)) if megapixels else None
