"""Batches: one bucket each, nothing sampled is dropped, and any point of a run can be returned to."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.data.image import ByteRange, ImageFolder, ImageSettings, TrainingImage
from dreamloom.train.data.sampler import sample_epoch
from dreamloom.train.data.schedule import Batch, BatchSchedule, make_samplers, pack_batch_ids

BUCKETS = [(512, 512), (576, 448), (448, 576)]


def dataset(folders: list[tuple[Fraction, list[int]]]) -> Dataset:
    """Folders of (multiply, how many images in each of the buckets)."""
    samples: list[Sample] = []
    for index, (multiply, counts) in enumerate(folders):
        for bucket, count in zip(BUCKETS, counts, strict=True):
            for _ in range(count):
                name = f"{index}/{len(samples)}"
                image = TrainingImage(name, ByteRange(Path(name)), "", ImageSettings(multiply))
                samples.append(Sample(image, index, bucket, bucket, 1))
    image_folders = tuple(ImageFolder(str(index), multiply, ()) for index, (multiply, _) in enumerate(folders))
    return Dataset(image_folders, tuple(samples), ())


KEYS = st.integers(0, 2**64 - 1)
contents = st.lists(
    st.tuples(
        st.sampled_from([Fraction(1), Fraction(2), Fraction(1, 4), Fraction("0.3"), Fraction("1.7")]),
        st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any),
    ),
    min_size=1,
    max_size=3,
)


@given(contents, st.integers(1, 7), st.integers(0, 3))
def test_an_epochs_batches_hold_what_was_sampled_and_the_filling_they_own_up_to(
    folders: list[tuple[Fraction, list[int]]], batch: int, epoch: int
) -> None:
    data = dataset(folders)
    try:
        schedule = BatchSchedule(data, TrainConfig(batch_size=batch, epochs=4, seed=5))
    except UserError:
        return  # so few images at so small a multiply that nothing is shown
    batches = schedule.epoch_batches(epoch)
    assert all(len(b.sample_ids) == batch for b in batches)
    assert all(data.samples[s].bucket == b.bucket for b in batches for s in b.sample_ids)
    assert all(0 <= b.num_filled < batch for b in batches)
    kept = Counter(s for b in batches for s in b.sample_ids[: batch - b.num_filled])
    assert kept == Counter(sample_epoch(schedule.samplers, 5, epoch).tolist())


@given(contents, st.integers(1, 7))
def test_short_batches_are_filled_from_images_not_sampled_yet(
    folders: list[tuple[Fraction, list[int]]], batch: int
) -> None:
    data = dataset(folders)
    try:
        schedule = BatchSchedule(data, TrainConfig(batch_size=batch, epochs=1))
    except UserError:
        return
    sampled = set(sample_epoch(schedule.samplers, 0, 0).tolist())
    for short in (b for b in schedule.epoch_batches(0) if b.num_filled):
        filling = short.sample_ids[batch - short.num_filled :]
        members = {index for index, sample in enumerate(data.samples) if sample.bucket == short.bucket}
        fresh = members - sampled
        assert len(fresh & set(filling)) == min(len(fresh), short.num_filled)


@given(contents, st.integers(1, 5), st.integers(1, 3), st.one_of(st.none(), st.integers(1, 9)), st.data())
def test_a_run_can_go_on_from_any_batch(
    folders: list[tuple[Fraction, list[int]]], batch: int, accumulate: int, max_steps: int | None, data: st.DataObject
) -> None:
    config = TrainConfig(batch_size=batch, gradient_accumulation_steps=accumulate, max_train_steps=max_steps, epochs=3)
    try:
        schedule = BatchSchedule(dataset(folders), config)
    except UserError:
        return
    whole = list(schedule.batches_after(0))
    assert len(whole) == schedule.num_batches
    assert [b.first_index for b in whole] == list(range(0, schedule.num_images, batch))
    assert schedule.num_steps == -(-len(whole) // accumulate)
    assert schedule.num_filled == sum(b.num_filled for b in whole)
    done = data.draw(st.integers(0, len(whole)))
    assert list(BatchSchedule(dataset(folders), config).batches_after(done * batch)) == whole[done:]


def test_run_01_five_images_in_batches_of_four() -> None:
    """There, both batches are padded from the remainder; here the three others fill the second one."""
    schedule = BatchSchedule(dataset([(Fraction(1), [5, 0, 0])]), TrainConfig(batch_size=4, epochs=1))
    full, short = sorted(schedule.epoch_batches(0), key=lambda b: b.num_filled)
    assert (full.num_filled, short.num_filled) == (0, 3)
    assert len(set(short.sample_ids)) == 4


def test_run_02_a_lone_wide_image_is_not_dropped() -> None:
    schedule = BatchSchedule(dataset([(Fraction(1), [3, 1, 0])]), TrainConfig(batch_size=4, epochs=1))
    assert sorted(b.num_filled for b in schedule.epoch_batches(0)) == [1, 3]


def test_multiplies_that_show_nothing_are_the_users_error() -> None:
    with pytest.raises(UserError, match="multiplies"):
        BatchSchedule(dataset([(Fraction("0.1"), [3, 0, 0])]), TrainConfig(epochs=2))


def test_images_of_one_batch_id_keep_to_themselves() -> None:
    samples = []
    for number in range(20):
        image = TrainingImage(
            str(number), ByteRange(Path(str(number))), "", ImageSettings(batch_id="horses" if number < 7 else "")
        )
        samples.append(Sample(image, 0, (512, 512), (512, 512), 1))
    schedule = BatchSchedule(
        Dataset((ImageFolder(".", Fraction(1), ()),), tuple(samples), ()), TrainConfig(batch_size=4, epochs=2)
    )
    for batch in schedule.batches_after(0):
        assert len({index < 7 for index in batch.sample_ids}) == 1
    assert schedule.buckets == [(512, 512)]


@given(st.lists(st.sampled_from(["", "", "a", "b"]), max_size=40), st.integers(2, 5), st.integers(0, 4), KEYS)
def test_batches_of_one_batch_id_go_into_one_step_as_far_as_there_are_so_many(
    ids: list[str], per_step: int, begin: int, key: int
) -> None:
    begin %= per_step
    batches = [Batch((512, 512), (number // 2,), named, 0, 0) for number, named in enumerate(ids)]
    packed = pack_batch_ids(batches, begin, per_step, key)
    assert Counter(packed) == Counter(batches), "all of them, each as often as before"
    steps = [packed[start : start + per_step] for start in range(begin, len(packed) - per_step + 1, per_step)]
    alike = sum(step[0].batch_id != "" and len({batch.batch_id for batch in step}) == 1 for step in steps)
    assert alike >= min(len(steps), sum(ids.count(named) // per_step for named in "ab"))


def test_steps_hold_one_batch_id() -> None:
    """18 images of one id in batches of 2, 3 a step: from the second epoch on, steps begin before the epoch does."""
    samples = []
    for number in range(25):
        image = TrainingImage(
            str(number), ByteRange(Path(str(number))), "", ImageSettings(batch_id="a" if number < 18 else "")
        )
        samples.append(Sample(image, 0, (512, 512), (512, 512), 1))
    data = Dataset((ImageFolder(".", Fraction(1), ()),), tuple(samples), ())
    schedule = BatchSchedule(data, TrainConfig(batch_size=2, gradient_accumulation_steps=3, epochs=3))
    batches = list(schedule.batches_after(0))
    assert [batch.first_index for batch in batches] == list(range(0, schedule.num_images, 2))
    steps = [batches[start : start + 3] for start in range(0, len(batches), 3)]
    assert sum({batch.batch_id for batch in step} == {"a"} for step in steps) >= 8  # of 9, where epochs meet one less


def test_an_image_with_a_multiply_of_its_own_has_a_sampler_of_its_own() -> None:
    multiplies = [Fraction(1), Fraction(1), Fraction(3), Fraction(1, 2), Fraction(1, 2)]
    samples = [
        Sample(TrainingImage(str(n), ByteRange(Path(str(n))), "", ImageSettings(m)), 0, (512, 512), (512, 512), 1)
        for n, m in enumerate(multiplies)
    ]
    samplers = make_samplers(Dataset((ImageFolder("a", Fraction(1), ()),), tuple(samples), ()))
    for epoch in range(4):
        counts = Counter(sample_epoch(samplers, 0, epoch).tolist())
        assert [counts[n] for n in range(3)] == [1, 1, 3] and counts[3] + counts[4] == 1
