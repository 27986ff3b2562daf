"""Stretches with a ratio each: exact counts, whatever the folders, the batch and the ratios; known up to a point."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset
from dreamloom.train.data.ratio_schedule import RatioSchedule
from dreamloom.train.data.schedule import BatchSchedule
from tests.train.data.test_schedule import batches_of, contents, dataset

Folders = list[tuple[Fraction, list[int]]]
RATIOS = st.lists(st.sampled_from([Fraction(2) ** power for power in range(-3, 3)]), min_size=1, max_size=40)


def make(data: Dataset, **settings: int | None) -> RatioSchedule:
    """The last folder is the ground truth."""
    limits = {"auto_ratio": True, "limit_mean": 0.02, "ground_truth": [data.folders[-1].name]}
    return RatioSchedule(data, TrainConfig.model_validate({**settings, **limits}))


@given(contents, st.integers(1, 6), st.integers(1, 3), st.integers(1, 20), st.integers(1, 4), RATIOS)
def test_each_stretch_shows_its_ratio_to_within_an_image(
    folders: Folders, batch_size: int, accumulate: int, steps: int, every: int, ratios: list[Fraction]
) -> None:
    """Also summed over all stretches, for each folder; and whatever was shown once is shown no more before the rest."""
    assume(len(folders) > 1)
    data = dataset(folders)
    lengths = {"batch_size": batch_size, "gradient_accumulation_steps": accumulate, "max_train_steps": steps}
    schedule = make(data, **lengths, evaluate_every_n_steps=every)
    ratios = (ratios * 40)[: len(schedule.epoch_ends)]
    schedule.give_ratios(ratios)
    assert schedule.num_images == steps * batch_size * accumulate
    batches = batches_of(schedule)
    assert [index for batch in batches for index in batch.indices] == list(range(schedule.num_images))
    order = [sample_id for batch in batches for sample_id in batch.sample_ids]
    asked = [Fraction(0)] * len(data.folders)
    weights = [multiply * sum(counts) for multiply, counts in folders]
    begin = 0
    for end, ratio in zip(schedule.epoch_ends, ratios, strict=True):
        for folder, weight in enumerate(weights):
            is_truth = folder == len(weights) - 1
            share = ratio / (1 + ratio) if is_truth else weight / sum(weights[:-1]) / (1 + ratio)
            asked[folder] += (end - begin) * share
        shown = Counter(data.samples[sample_id].folder_index for sample_id in order[:end])
        assert all(abs(shown[folder] - count) <= 1 for folder, count in enumerate(asked))
        begin = end
    for sampler in schedule.samplers:
        times = Counter(order)
        counts = [times[sample_id] for sample_id in sampler.sample_ids]
        assert max(counts) - min(counts) <= 1
    by_folder = schedule.images_by_folder()
    assert [count for count, _ in by_folder.values()] == asked
    assert sum(shown for _, shown in by_folder.values()) == schedule.num_images


@given(contents, st.integers(1, 4), st.integers(2, 12), st.integers(1, 4), RATIOS, st.data())
def test_what_is_known_goes_on_from_any_step_and_later_ratios_change_nothing_before(
    folders: Folders, batch_size: int, steps: int, every: int, ratios: list[Fraction], drawn: st.DataObject
) -> None:
    assume(len(folders) > 1)
    settings = {"batch_size": batch_size, "max_train_steps": steps, "evaluate_every_n_steps": every}
    schedule, whole = make(dataset(folders), **settings), make(dataset(folders), **settings)
    ratios = (ratios * 12)[: len(whole.epoch_ends)]
    whole.give_ratios(ratios)
    all_steps = list(whole.steps_after(0))
    known = drawn.draw(st.integers(1, len(ratios)))
    schedule.give_ratios(ratios[:known])
    end = -(-schedule.epoch_ends[known - 1] // batch_size)
    assert list(schedule.steps_after(0)) == all_steps[:end], "as far as it is known"
    done = drawn.draw(st.integers(0, end))
    schedule.give_ratios(ratios)
    assert list(schedule.steps_after(done * batch_size)) == all_steps[done:]
    seen = schedule.epoch_ends[known - 1]
    shown = Counter(dataset(folders).samples[s].folder_index for b in batches_of(schedule) for s in b.sample_ids)
    assert {folder: count for folder, (_, count) in schedule.images_by_folder().items() if count} == shown
    assert sum(count for _, count in schedule.images_by_folder(seen).values()) == seen


@given(contents, st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), RATIOS)
def test_epochs_count_the_other_images_whatever_ground_truth_is_shown(
    folders: Folders, batch_size: int, accumulate: int, epochs: int, every: int, ratios: list[Fraction]
) -> None:
    assume(len(folders) > 1)
    data = dataset(folders)
    settings = {"batch_size": batch_size, "gradient_accumulation_steps": accumulate, "epochs": epochs}
    schedule = make(data, **settings, evaluate_every_n_steps=every)
    planned = BatchSchedule(data, TrainConfig.model_validate(settings))
    assert (schedule.num_images, schedule.planned_steps) == (planned.num_images, planned.num_steps)
    for known in range(1, 1000):
        schedule.give_ratios([ratios[place % len(ratios)] for place in range(known)])
        if known >= len(schedule.epoch_ends):
            break
    others = list(planned.images_by_folder().values())[:-1]
    shown = list(schedule.images_by_folder().values())[:-1]
    assert abs(sum(count for _, count in shown) - sum(count for _, count in others)) <= 1
    order = [sample_id for batch in batches_of(schedule) for sample_id in batch.sample_ids]
    assert len(order) == schedule.num_images
    progress = [schedule.progress(seen) for seen in range(0, schedule.num_images + 1, schedule.step_size)]
    assert progress[0] == 0 and progress == sorted(set(progress)) and progress[-1] <= 1


def test_the_folder_s_own_ratio_does_not_matter_but_for_the_length() -> None:
    settings = {"batch_size": 2, "max_train_steps": 9, "evaluate_every_n_steps": 3}
    for multiply in (Fraction(1, 7), Fraction(3)):
        schedule = make(dataset([(Fraction(1), [4, 0, 0]), (multiply, [20, 0, 0])]), **settings)
        schedule.give_ratios([Fraction(1), Fraction(1), Fraction(1, 2), Fraction(2)])  # the first is in two
        assert [shown for _, shown in schedule.images_by_folder().values()] == [9, 9]
        assert schedule.shown_after(2) == [7, 5]


def test_it_needs_images_of_both_kinds() -> None:
    """Also where the epochs are too few to show one of them."""
    data = dataset([(Fraction(1), [4, 0, 0])])
    with pytest.raises(UserError, match="auto_ratio needs images of ground truth and others"):
        make(data, max_train_steps=2, evaluate_every_n_steps=1)
    data = dataset([(Fraction("0.001"), [4, 0, 0]), (Fraction(1), [4, 0, 0])])
    with pytest.raises(UserError, match="auto_ratio needs images of ground truth and others"):
        make(data, epochs=2, evaluate_every_n_steps=1)


def test_a_run_is_as_far_as_its_other_images_whatever_ground_truth_comes_later() -> None:
    """16 other images: the first stretch of 8 shows 4 of them, at 1 : 1."""
    data = dataset([(Fraction(1), [8, 0, 0]), (Fraction(1), [8, 0, 0])])
    schedule = make(data, batch_size=2, epochs=2, evaluate_every_n_steps=4)
    schedule.give_ratios([Fraction(1)] * 3 + [Fraction(3)])  # up to a quarter, a half and all of the first stretch
    assert schedule.progress(8) == 0.25 and schedule.num_images == 8 + 4 * 12
