"""Which part of an image is kept, how large it becomes, and what is around it."""

from dataclasses import dataclass
from math import isqrt

from PIL import Image

from dreamloom.caption.compress.config import CompressConfig, max_area, parse_size

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Layout:
    """How an image is laid out anew."""

    original: Size
    """Of the upright image."""
    kept: Size
    """Of the middle of the image that is kept, in its own pixels."""
    shown: Size
    """To which that is shrunk."""
    canvas: Size
    """Of the new image; what is larger than `shown` is padding."""

    def __str__(self) -> str:
        """Returns the sizes before and after."""
        return f"{self.original[0]} × {self.original[1]} to {self.canvas[0]} × {self.canvas[1]}"

    @property
    def changes_shape(self) -> bool:
        """Whether something is cut off or added."""
        return self.kept != self.original or self.canvas != self.shown

    @property
    def shorter_side(self) -> int:
        """What the shorter side of the whole original becomes, in pixels, rounded up."""
        return max(-(-self.shown[axis] * min(self.original) // self.kept[axis]) for axis in (0, 1))


def lay_out(original: Size, config: CompressConfig) -> Layout:
    """Returns how an image of a size is laid out: never enlarged, and with its shape to within a pixel."""
    area, within, shape = max_area(config), parse_size(config.resize), parse_size(config.crop)
    kept = _middle(original, shape) if shape else original
    fills = shape and kept[0] >= shape[0] and kept[1] >= shape[1]
    shown = fit(shape, None, area) if shape and fills else fit(kept, within or shape, area)
    canvas = within if config.pad and within else shown
    return Layout(original, kept, shown, canvas)


def fit(size: Size, within: Size | None, area: int | None) -> Size:
    """Shrinks a size until it fits; the shape is that of `size` to within a pixel.

    Args:
        size: returned as it is, if it fits.
        within: maximum width and height; None: any.
        area: maximum pixels; None: any number.
    """
    width, height = fitted = size
    if within and (width > within[0] or height > within[1]):
        if width * within[1] >= height * within[0]:
            fitted = (within[0], max(1, height * within[0] // width))
        else:
            fitted = (max(1, width * within[1] // height), within[1])
    if area and fitted[0] * fitted[1] > area:
        narrower = max(1, min(area, isqrt(area * width // height)))
        fitted = (narrower, max(1, min(area // narrower, narrower * height // width)))
    return fitted


def _middle(size: Size, shape: Size) -> Size:
    """The largest part of an image that has a shape."""
    width, height = size
    if width * shape[1] > height * shape[0]:
        return max(1, round(height * shape[0] / shape[1])), height
    return width, max(1, round(width * shape[1] / shape[0]))


def render(image: Image.Image, layout: Layout, background: tuple[int, int, int]) -> Image.Image:
    """Draws an image as it is laid out.

    Args:
        image: the original, upright; it, and a mask, may have another resolution than `layout.original`.
        background: RGB color of the padding.
    """
    scale = [image.size[axis] / layout.original[axis] for axis in (0, 1)]
    left, top = ((layout.original[axis] - layout.kept[axis]) // 2 for axis in (0, 1))
    box = (left * scale[0], top * scale[1], (left + layout.kept[0]) * scale[0], (top + layout.kept[1]) * scale[1])
    if layout.shown != image.size or layout.kept != layout.original:
        image = image.resize(layout.shown, Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    if layout.canvas == layout.shown:
        return image
    color = (*background, 255) if image.mode == "RGBA" else background if image.mode == "RGB" else background[0]
    canvas = Image.new(image.mode, layout.canvas, color)
    canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
    return canvas
