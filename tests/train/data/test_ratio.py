"""Another ratio of ground truth than the folder's: exact, whatever the folders and their multiplies."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.ratio import with_ratio
from dreamloom.train.data.sampler import make_samplers
from dreamloom.train.data.schedule import BatchSchedule
from tests.train.data.test_schedule import contents, dataset


@given(contents, st.integers(0, 400), st.data())
def test_the_ratio_is_the_one_asked_for_and_the_rest_stays(
    folders: list[tuple[Fraction, list[int]]], hundredths: int, drawn: st.DataObject
) -> None:
    assume(len(folders) > 1)
    data, ratio = dataset(folders), hundredths / 100
    places = list(range(len(folders)))
    truth = set(drawn.draw(st.lists(st.sampled_from(places), min_size=1, max_size=len(places) - 1, unique=True)))
    before = {place: asked for place, (asked, _) in BatchSchedule(data, TrainConfig()).images_by_folder().items()}
    asked = BatchSchedule(with_ratio(data, truth, ratio), TrainConfig()).images_by_folder()
    after = {place: asked[place][0] if place in asked else Fraction(0) for place in before}
    others = sum(count for place, count in after.items() if place not in truth)
    assert sum(count for place, count in after.items() if place in truth) == Fraction(hundredths, 100) * others
    assert all(after[place] == before[place] for place in before if place not in truth)
    shares = {after[place] / before[place] for place in before if place in truth}
    assert len(shares) == 1, "multiplies divide ground truth among its folders as before"
    assert with_ratio(data, truth, None) is data


def test_it_needs_images_of_both_kinds() -> None:
    data = dataset([(Fraction(1), [4, 0, 0])])
    for truth in ({0}, set[int]()):
        with pytest.raises(UserError, match="ground_truth_ratio needs images of ground truth and others"):
            with_ratio(data, truth, 1.0)


def test_ground_truth_comes_in_the_same_order_at_any_ratio() -> None:
    data = dataset([(Fraction(1, 4), [9, 0, 0]), (Fraction(1), [9, 0, 0])])
    before, after = (make_samplers(each)[0] for each in (data, with_ratio(data, {0}, 0.7)))
    assert before.sample_span(0, 0, 30).tolist() == after.sample_span(0, 0, 30).tolist()
