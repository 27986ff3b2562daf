"""Ground truth that is too small or too narrow is told, with what would be enough."""

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from dreamloom.curate.rehearsal import Shown, warnings


def shown(name: str, images: int, per_epoch: int, training: bool = False, **captions: int) -> Shown:
    return Shown(name, training, images, Fraction(per_epoch), captions)


MINE = shown("mine", 10, 20, training=True)


def test_a_source_is_too_small_if_its_images_are_shown_more_often_than_training_images() -> None:
    assert not warnings([MINE, shown("world", 10, 20)])
    (warning,) = warnings([MINE, shown("world", 9, 20)])
    assert warning.startswith(
        "world has too few images (9) for 20 draws per epoch: each is shown 2.22 times, a training"
    )
    assert "10 images are enough" in warning


@given(st.integers(1, 100), st.integers(1, 200), st.integers(1, 100), st.integers(1, 500))
def test_what_is_said_to_be_enough_is(images: int, draws: int, others: int, asked: int) -> None:
    mine = shown("mine", images, draws, training=True)
    if warnings([mine, shown("world", others, asked)]):
        enough = ceil(Fraction(asked) * images / draws)
        assert f" {enough:,} images are enough" in warnings([mine, shown("world", others, asked)])[0]
        assert not warnings([mine, shown("world", enough, asked)])
        assert enough == 1 or warnings([mine, shown("world", enough - 1, asked)])


def test_a_multiply_that_was_rounded_up_asks_for_no_image_more() -> None:
    draws = 18 * Fraction(round(Fraction(32, 18) * 10**12) + 1, 10**12)
    (warning,) = warnings([shown("mine", 32, 32, training=True), Shown("world", False, 18, draws, {})])
    assert "32 images are enough" in warning


def test_one_caption_for_more_than_half_of_what_is_shown_is_too_narrow() -> None:
    faces, scenes = Shown("faces", False, 100, Fraction(30), {"a face": 100}), shown("scenes", 100, 10, a=50, b=50)
    (warning,) = warnings([MINE, faces, scenes])
    assert warning.startswith("75% of the ground truth shown has the caption 'a face'")
    assert "20 more draws per epoch" in warning
    assert not warnings([MINE, faces, shown("scenes", 100, 30, a=50, b=50)])
    assert not warnings([MINE, shown("faces", 100, 30)]), "captions are not known yet"


def test_without_ground_truth_there_is_nothing_to_warn_of() -> None:
    assert warnings([MINE]) == [] and warnings([]) == []
