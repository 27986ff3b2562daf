"""Aspect-ratio buckets: the generated shapes to which images are cropped, and which image goes to which."""

from collections.abc import Sequence
from functools import lru_cache

Size = tuple[int, int]
"""Width and height, in pixels."""
PixelBox = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""

MIDDLE = (0.5, 0.5)
"""The point, in shares of the sides, around which images are cropped that have no other focus."""
MAX_ASPECT = 4.0
"""The longest buckets, as in EveryDream's tables; longer images are cropped to it."""
MIN_AREA = 0.85
"""The least area of a bucket, as a share of the square's. Smaller ones would crop less, but show less detail."""
MAX_UPSCALE = 4.0
"""An image whose sides would grow by more than this to fill its bucket is too small to learn from."""


@lru_cache(maxsize=1024)
def generate_buckets(resolution: int, bucket_reso_steps: int, max_aspect: float = MAX_ASPECT) -> tuple[Size, ...]:
    """Generates all buckets for a resolution, from the tallest to the widest.

    They are, for each width, the tallest one that fits the square's area, and the transposes of these. No two have the
    same ratio.

    Args:
        resolution: the side of the square bucket, in pixels; no bucket has a larger area, or one below MIN_AREA of it.
        bucket_reso_steps: sides are multiples of this, in pixels.
        max_aspect: the largest ratio of a bucket's sides.

    Raises:
        ValueError: resolution is not a multiple of bucket_reso_steps, so there would be no square bucket.
    """
    step = bucket_reso_steps
    if resolution % step:
        raise ValueError(f"resolution {resolution} is not a multiple of bucket_reso_steps {step}")
    area = resolution * resolution
    widths = range(step, int(resolution * max_aspect**0.5) + 1, step)
    tallest = [(width, area // width // step * step) for width in widths]
    kept = {
        (width, height)
        for width, height in tallest
        if max(width, height) <= max_aspect * min(width, height) and width * height >= MIN_AREA * area
    }
    transposes = {(height, width) for width, height in kept}
    return tuple(sorted(kept | transposes, key=lambda size: (size[0] / size[1], size)))


@lru_cache(maxsize=2**16)  # many images have the same size
def find_bucket(size: Size, resolution: int, bucket_reso_steps: int, upscale: bool) -> Size | None:
    """Finds the bucket in which training shows an image; None: the image is too small for it.

    Args:
        size: the upright image's, in pixels.
        resolution: the side of the square bucket, in pixels.
        bucket_reso_steps: sides are multiples of this, in pixels.
        upscale: whether small images are enlarged; else they get the buckets of a lower resolution.
    """
    if upscale:
        bucket = assign_bucket(size, generate_buckets(resolution, bucket_reso_steps))
        return bucket if upscale_factor(size, bucket) <= MAX_UPSCALE else None
    return assign_bucket_without_upscale(size, resolution, bucket_reso_steps)


def assign_bucket(size: Size, buckets: tuple[Size, ...]) -> Size:
    """Finds the bucket with the nearest aspect ratio, by the ratio of the ratios.

    So an image and its transpose get a bucket and its transpose, and images of one ratio get one bucket, whatever their
    size. Ties go to the bucket nearer to a square.
    """
    width, height = size

    def distance(bucket: Size) -> tuple[float, float]:
        a, b = width * bucket[1], height * bucket[0]
        return max(a, b) / min(a, b), max(bucket) / min(bucket)

    return min(buckets, key=distance)


def assign_bucket_without_upscale(size: Size, resolution: int, bucket_reso_steps: int) -> Size | None:
    """Finds the bucket of the highest resolution that an image fills without being enlarged.

    Args:
        size: the image's, upright.
        resolution: the highest resolution.
        bucket_reso_steps: sides are multiples of this, in pixels.

    Returns:
        The bucket; None where the image fills none.
    """
    width, height = size
    step = bucket_reso_steps
    highest = min(resolution, int((width * height / MIN_AREA) ** 0.5) // step * step)  # none higher can be filled
    for lower in range(highest, 0, -step):
        bucket = assign_bucket(size, generate_buckets(lower, step))
        if upscale_factor(size, bucket) <= 1:
            return bucket
    return None


def center_crop_box(size: Size, bucket: Size, focus: tuple[float, float] = MIDDLE) -> PixelBox:
    """Computes the largest part of an image that has the bucket's aspect ratio, centred as near as can be at a point.

    Args:
        size: the image's, upright.
        bucket: the bucket's.
        focus: the point: x and y, in shares of the sides.
    """
    width, height = size
    if width * bucket[1] > height * bucket[0]:
        inside = max(1, round(height * bucket[0] / bucket[1]))
        left = max(0, min(int(width * focus[0] - inside / 2), width - inside))
        return left, 0, left + inside, height
    inside = max(1, round(width * bucket[1] / bucket[0]))
    top = max(0, min(int(height * focus[1] - inside / 2), height - inside))
    return 0, top, width, top + inside


def upscale_factor(size: Size, bucket: Size) -> float:
    """Computes by how much the sides of an image grow to fill its bucket; below 1 it shrinks."""
    left, top, right, bottom = center_crop_box(size, bucket)
    return max(bucket[0] / (right - left), bucket[1] / (bottom - top))


def read_folder_resolutions(given: Sequence[str]) -> dict[str, int]:
    """Reads resolutions of single folders, or of sources, as folder → resolution in pixels.

    Raises:
        ValueError: one is not FOLDER=PIXELS, of 32 to 4096 pixels.
    """
    found: dict[str, int] = {}
    for each in given:
        name, _, pixels = each.rpartition("=")
        if not name or not pixels.isdecimal() or not 32 <= int(pixels) <= 4096:
            raise ValueError(f"folder_resolutions: {each!r} is not FOLDER=PIXELS, such as faces=768")
        found[name.strip("/")] = int(pixels)
    return found
