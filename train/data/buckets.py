"""Aspect-ratio buckets, generated: the shapes to which images are cropped, and which image goes to which."""

from functools import lru_cache

Size = tuple[int, int]
"""Width and height, in pixels."""

MAX_ASPECT = 4.0
"""EveryDream's tables end at 4:1 too; longer images are cropped to it."""


@lru_cache(maxsize=1024)
def generate_buckets(resolution: int, bucket_reso_steps: int, max_aspect: float = MAX_ASPECT) -> tuple[Size, ...]:
    """All buckets for a resolution: sides divisible by `quantum`, area at most resolution², none inside another.

    The list is closed under transposition, and sorted from the tallest to the widest.

    Raises:
        ValueError: resolution is not a multiple of quantum (there would be no square bucket).
    """
    if resolution % bucket_reso_steps:
        raise ValueError(f"resolution {resolution} is not a multiple of bucket_reso_steps {bucket_reso_steps}")
    area = resolution * resolution
    longest = int(resolution * max_aspect**0.5)
    fitting = [
        (width, height)
        for width in range(bucket_reso_steps, longest + 1, bucket_reso_steps)
        if (height := min(area // width, int(width * max_aspect)) // bucket_reso_steps * bucket_reso_steps)
        and width <= height * max_aspect
    ]
    largest = {a for a in fitting if not any(a != b and a[0] <= b[0] and a[1] <= b[1] for b in fitting)}
    return tuple(sorted(largest, key=lambda size: (size[0] / size[1], size)))


def assign_bucket(size: Size, buckets: tuple[Size, ...]) -> Size:
    """The bucket whose aspect ratio is nearest, by the ratio of the ratios: a turned image gets the turned bucket.

    Ties go to the bucket nearer to a square. Of two images with one ratio both get one bucket, whatever their size.
    """
    width, height = size

    def distance(bucket: Size) -> tuple[float, float]:
        a, b = width * bucket[1], height * bucket[0]
        return max(a, b) / min(a, b), max(bucket) / min(bucket)

    return min(buckets, key=distance)


def assign_bucket_without_upscale(size: Size, resolution: int, bucket_reso_steps: int) -> Size | None:
    """The bucket for an image that shall not be enlarged: of the highest resolution that it fills; None: of none."""
    width, height = size
    ceiling = min(
        resolution, int((width * height) ** 0.5) // bucket_reso_steps * bucket_reso_steps
    )  # no larger bucket can be filled
    for lower in range(ceiling, 0, -bucket_reso_steps):
        bucket = assign_bucket(size, generate_buckets(lower, bucket_reso_steps))
        if upscale_factor(size, bucket) <= 1:
            return bucket
    return None


def center_crop_box(size: Size, bucket: Size) -> tuple[int, int, int, int]:
    """The largest centred part of an image that has the bucket's shape: left, top, right, bottom, in pixels."""
    width, height = size
    if width * bucket[1] > height * bucket[0]:
        inside = max(1, round(height * bucket[0] / bucket[1]))
        left = (width - inside) // 2
        return left, 0, left + inside, height
    inside = max(1, round(width * bucket[1] / bucket[0]))
    top = (height - inside) // 2
    return 0, top, width, top + inside


def upscale_factor(size: Size, bucket: Size) -> float:
    """By how much the sides of an image grow to fill its bucket; under 1, it is shrunk."""
    left, top, right, bottom = center_crop_box(size, bucket)
    return max(bucket[0] / (right - left), bucket[1] / (bottom - top))
