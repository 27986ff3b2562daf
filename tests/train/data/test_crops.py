"""How images come into their buckets, and that which view is shown depends on the sample's index alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.caption.parts import CaptionParts
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.crops import CropPlanner, View, center_view, jitter_crop, padded_image_box, render_views
from dreamloom.train.data.dataset import Sample
from dreamloom.train.data.image import ByteRange, ImageSettings, TrainingImage


def make_sample(path: Path, size: tuple[int, int], bucket: tuple[int, int], **settings: Any) -> Sample:
    return Sample(
        TrainingImage("x", ByteRange(str(path)), (CaptionParts(),), ImageSettings(**settings)), 0, size, bucket
    )


@pytest.fixture
def wide(tmp_path: Path) -> Sample:
    """Black, with an orange middle and a blue left edge."""
    pixels = np.zeros((64, 256, 3), np.uint8)
    pixels[:, 96:160] = (255, 128, 0)
    pixels[:, :16] = (0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    return make_sample(tmp_path / "x.png", (256, 64), (32, 32))


def render(sample: Sample, view: View) -> np.ndarray[Any, Any]:
    return render_views(sample, [view])[0]


def test_a_crop_keeps_the_middle_and_the_colours(wide: Sample) -> None:
    pixels = render(wide, center_view(wide))
    assert pixels.shape == (32, 32, 3)
    assert (pixels[:, 3:-3] == (255, 128, 0)).all()  # the resampling looks a little beyond the crop
    assert (pixels[..., 0] > 200).all()


def test_a_focus_moves_the_crop_and_those_beside_it(wide: Sample) -> None:
    focused = make_sample(wide.image.source.path, wide.size, wide.bucket, focus=(0.02, 0.5))
    assert center_view(focused).box == (0, 0, 64, 64)
    assert (render(focused, center_view(focused))[:, :4] == (0, 0, 255)).all()
    lefts = [jitter_crop((0, 0, 64, 64), (256, 64), number, 0.1, (0.02, 0.5))[0] for number in range(1, 400)]
    assert min(lefts) < 3 and sum(left < 60 for left in lefts) > len(lefts) / 2, "most likely near the focus"


def test_a_padded_image_is_whole_on_the_colour(wide: Sample) -> None:
    view = View((0, 0, 256, 64), pad_color="#00ff7f")
    pixels = render(wide, view)
    assert padded_image_box(wide) == (0, 12, 32, 20)
    assert (pixels[:12] == (0, 255, 127)).all() and (pixels[20:] == (0, 255, 127)).all()
    assert (pixels[12:20, 0] == (0, 0, 255)).all() and (abs(pixels[12:20, 14:18].astype(int) - (255, 128, 0)) < 3).all()


def test_a_flipped_view_is_the_mirrored_one(wide: Sample) -> None:
    for pad in (None, "#ffffff"):
        view = View((0, 0, 100, 64), False, pad)
        once, twice = render_views(wide, [view, View(view.box, True, pad)])
        assert np.array_equal(once[:, ::-1], twice) and not np.array_equal(once, twice)


def test_an_image_in_a_shard_is_read_from_its_place(wide: Sample, tmp_path: Path) -> None:
    data = wide.image.source.read()
    (tmp_path / "shard.tar").write_bytes(b"before" + data + b"behind")
    inside = Sample(
        TrainingImage("x", ByteRange(str(tmp_path / "shard.tar"), 6, len(data)), (CaptionParts(),)),
        0,
        wide.size,
        wide.bucket,
    )
    assert np.array_equal(render(inside, center_view(inside)), render(wide, center_view(wide)))


@given(
    st.tuples(st.integers(20, 400), st.integers(20, 400)), st.sampled_from([(32, 32), (64, 16), (24, 40)]),
    st.integers(1, 63), st.floats(0.01, 0.5),
)  # fmt: skip
def test_a_moved_crop_lies_inside_has_the_shape_and_shrinks_by_at_most_the_jitter(
    size: tuple[int, int], bucket: tuple[int, int], number: int, jitter: float
) -> None:
    whole = center_view(make_sample(Path("x"), size, bucket)).box
    left, top, right, bottom = jitter_crop(whole, size, number, jitter)
    assert -1e-9 <= left < right <= size[0] + 1e-9 and -1e-9 <= top < bottom <= size[1] + 1e-9
    shrunk = (right - left) / (whole[2] - whole[0])
    assert 1 - jitter - 1e-9 <= shrunk <= 1
    assert (bottom - top) / (whole[3] - whole[1]) == pytest.approx(shrunk)


def test_what_may_be_shown_is_what_is_kept() -> None:
    sample = make_sample(Path("x"), (300, 200), (32, 32))
    never, always = (make_sample(Path("x"), (300, 200), (32, 32), flip_p=p) for p in (0.0, 1.0))
    without_jitter, with_flips = (
        CropPlanner(TrainConfig()),
        CropPlanner(TrainConfig(flip_p=0.5, crop_jitter=0.1, crops_per_image=3)),
    )
    assert without_jitter.all_views(sample) == [center_view(sample)]
    assert without_jitter.all_views(always) == [View(center_view(sample).box, True)]
    assert len(set(with_flips.all_views(sample))) == 6 and len(with_flips.all_views(never)) == 3
    for planner in (without_jitter, with_flips):
        for each in (sample, never, always):
            assert set(planner.choose_views([each] * 400, range(1000, 1400))) == set(planner.all_views(each))


def test_flips_come_in_the_stated_share_and_depend_on_the_index_alone() -> None:
    sample = make_sample(Path("x"), (300, 200), (32, 32))
    planner = CropPlanner(TrainConfig(flip_p=0.3, crop_jitter=0.02, seed=4))
    views = planner.choose_views([sample] * 4000, range(4000))
    assert sum(view.flipped for view in views) / 4000 == pytest.approx(0.3, abs=0.03)
    assert planner.choose_views([sample] * 10, range(500, 510)) == views[500:510]
    assert (
        CropPlanner(TrainConfig(flip_p=0.3, crop_jitter=0.02, seed=5)).choose_views([sample] * 4000, range(4000))
        != views
    )
