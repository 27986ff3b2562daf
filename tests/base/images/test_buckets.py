"""Buckets: the laws they keep, and EveryDream's own answers where those are right."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.images.buckets import (
    MAX_ASPECT,
    MIN_AREA,
    assign_bucket,
    assign_bucket_without_upscale,
    center_crop_box,
    generate_buckets,
    upscale_factor,
)

quanta = st.sampled_from([8, 16, 32, 64])
resolutions = st.tuples(quanta, st.integers(1, 24)).map(lambda pair: (pair[0] * pair[1], pair[0]))
sides = st.integers(1, 9000)
sizes = st.tuples(sides, sides)


@given(resolutions)
def test_generated_buckets_keep_their_laws(given: tuple[int, int]) -> None:
    resolution, quantum = given
    buckets = generate_buckets(resolution, quantum)
    assert (resolution, resolution) in buckets
    for width, height in buckets:
        assert width % quantum == 0 and height % quantum == 0
        assert MIN_AREA * resolution**2 <= width * height <= resolution**2
        assert max(width, height) <= MAX_ASPECT * min(width, height)
        assert (height, width) in buckets
    assert len({Fraction(*bucket) for bucket in buckets}) == len(buckets), "of two buckets of one ratio, one is useless"


def crops_and_areas(resolution: int) -> tuple[int, float, float, float]:
    """Buckets; mean and largest share of an image that is cropped, and mean area, over ratios from 1:4 to 4:1, in %.

    The ratios are spaced evenly by their logarithm, as an image is as often tall as wide.
    """
    buckets = generate_buckets(resolution, 64)
    kept, areas = [], []
    for ratio in 4 ** np.linspace(-1, 1, 4001):
        width, height = 10**6 * ratio**0.5, 10**6 / ratio**0.5
        bucket = assign_bucket((round(width), round(height)), buckets)
        shapes = bucket[0] / bucket[1], width / height
        kept.append(min(shapes) / max(shapes))
        areas.append(bucket[0] * bucket[1] / resolution**2)
    count = len(kept)
    return len(buckets), 100 - 100 * sum(kept) / count, 100 - 100 * min(kept), 100 * sum(areas) / count


@pytest.mark.parametrize(("resolution", "at_most"), [(512, 6.3), (640, 4.45), (768, 3.75)])
def test_little_is_cropped(resolution: int, at_most: float) -> None:
    """At 512, EveryDream 2's own buckets crop 7.3 %."""
    assert crops_and_areas(resolution)[1] <= at_most


def test_the_page_has_the_figures_of_the_buckets() -> None:
    page = (Path(__file__).parents[3] / "docs/training-folder.md").read_text("utf-8")
    rows = [
        line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith(("| 512", "| 6", "| 7", "| 1"))
    ]
    assert len(rows) == 4
    for resolution, *figures in rows:
        buckets, mean, largest, area = crops_and_areas(int(resolution.replace(",", "")))
        assert figures == [str(buckets), f"{mean:.1f} %", f"{largest:.1f} %", f"{area:.1f} %"]


def test_common_shapes_of_photos_lose_little() -> None:
    """16:9 at 640 pixels lost 11 % where only buckets were kept that lie inside no other."""
    width, height = assign_bucket((1920, 1080), generate_buckets(640, 64))
    left, top, right, bottom = center_crop_box((1920, 1080), (width, height))
    assert (right - left) * (bottom - top) >= 0.95 * 1920 * 1080


@given(resolutions, sizes)
def test_a_turned_image_gets_the_turned_bucket_and_crop(given: tuple[int, int], size: tuple[int, int]) -> None:
    buckets = generate_buckets(*given)
    width, height = assign_bucket(size, buckets)
    assert assign_bucket(size[::-1], buckets) == (height, width)
    left, top, right, bottom = center_crop_box(size, (width, height))
    assert center_crop_box(size[::-1], (height, width)) == (top, left, bottom, right)


@given(resolutions, sizes, st.integers(2, 5))
def test_the_bucket_depends_on_the_ratio_alone(given: tuple[int, int], size: tuple[int, int], times: int) -> None:
    buckets = generate_buckets(*given)
    assert assign_bucket((size[0] * times, size[1] * times), buckets) == assign_bucket(size, buckets)


@given(resolutions)
def test_an_image_of_a_buckets_shape_gets_that_bucket_uncropped(given: tuple[int, int]) -> None:
    buckets = generate_buckets(*given)
    for bucket in buckets:
        assert assign_bucket(bucket, buckets) == bucket
        assert center_crop_box(bucket, bucket) == (0, 0, *bucket)
        assert upscale_factor(bucket, bucket) == 1


@given(resolutions, sizes)
def test_a_crop_lies_inside_the_image_and_touches_two_of_its_sides(
    given: tuple[int, int], size: tuple[int, int]
) -> None:
    left, top, right, bottom = center_crop_box(size, assign_bucket(size, generate_buckets(*given)))
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert (right - left, bottom - top)[right - left != size[0]] in size


@given(resolutions, sizes, st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_crop_around_a_point_is_as_large_and_has_the_point_in_its_middle_unless_an_edge_is_near(
    given: tuple[int, int], size: tuple[int, int], focus: tuple[float, float]
) -> None:
    bucket = assign_bucket(size, generate_buckets(*given))
    middle, box = center_crop_box(size, bucket), center_crop_box(size, bucket, focus)
    for side in (0, 1):
        length = box[side + 2] - box[side]
        assert length == middle[side + 2] - middle[side]
        if 0 < box[side] < size[side] - length:
            assert box[side] + length / 2 == pytest.approx(size[side] * focus[side], abs=1)
        assert box[side] - 1 <= size[side] * focus[side] <= box[side + 2] + 1


@pytest.mark.parametrize(
    ("size", "resolution", "bucket"),
    [
        ((1920, 1080), 512, (640, 384)),  # bkt-02
        ((640, 480), 512, (576, 448)),  # bkt-04
        ((3000, 2000), 512, (640, 384)),  # bkt-05
        ((2560, 1080), 512, (768, 320)),  # bkt-06
        ((5000, 1000), 512, (1024, 256)),  # bkt-07
        ((1920, 1080), 768, (1024, 576)),  # bkt-12
        ((3000, 2000), 768, (896, 640)),  # bkt-13
        ((1920, 1080), 1024, (1344, 768)),  # bkt-14
        ((4032, 3024), 1024, (1152, 896)),  # bkt-15
    ],
)
def test_everydreams_own_answers(size: tuple[int, int], resolution: int, bucket: tuple[int, int]) -> None:
    assert assign_bucket(size, generate_buckets(resolution, 64)) == bucket


def test_where_everydream_is_crooked_we_are_not() -> None:
    assert assign_bucket((1140, 1000), generate_buckets(512, 64))[::-1] == assign_bucket(
        (1000, 1140), generate_buckets(512, 64)
    )  # bkt-08, 09
    turned = (
        assign_bucket((3024, 4032), generate_buckets(1280, 64)),
        assign_bucket((4032, 3024), generate_buckets(1280, 64)),
    )
    assert turned == ((1088, 1472), (1472, 1088))  # bkt-17, 18: there 1024 × 1600 and 1408 × 1152
    width, height = assign_bucket((1000, 1200), generate_buckets(320, 64))  # bkt-20: there 576 × 640
    assert width * height <= 320**2


def test_the_shapes_sdxl_is_asked_for_are_buckets_of_1024() -> None:
    """Of those in its report (Podell et al. 2023, appendix I), the ones that its users name."""
    named = [(768, 1344), (832, 1216), (896, 1152), (1024, 1024)]
    assert {*named, *(size[::-1] for size in named)} <= set(generate_buckets(1024, 64))


@given(resolutions, sizes)
def test_without_upscaling_no_side_grows_and_what_is_large_enough_keeps_its_bucket(
    given: tuple[int, int], size: tuple[int, int]
) -> None:
    usual, found = assign_bucket(size, generate_buckets(*given)), assign_bucket_without_upscale(size, *given)
    if upscale_factor(size, usual) <= 1:
        assert found == usual
    elif found is None:
        assert min(size) < given[1] or max(size) > MAX_ASPECT * min(size)
    else:
        assert upscale_factor(size, found) <= 1
        assert assign_bucket_without_upscale(size[::-1], *given) == found[::-1]


def test_a_resolution_without_a_square_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        generate_buckets(500, 64)
