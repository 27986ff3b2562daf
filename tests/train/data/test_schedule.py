"""Batches: one bucket each, nothing sampled is dropped, and any point of a run can be returned to."""

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.caption.parts import CaptionParts
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset, Problem, Sample
from dreamloom.train.data.image import ByteRange, ImageFolder, ImageSettings, TrainingImage
from dreamloom.train.data.packing import pack_batch_ids
from dreamloom.train.data.sampler import make_samplers, sample_epoch
from dreamloom.train.data.schedule import Batch, BatchSchedule
from dreamloom.train.loop.distributed import DistributedGroup

BUCKETS = [(512, 512), (576, 448), (448, 576)]


def sample(name: str, folder_index: int, multiply: Fraction, bucket: tuple[int, int]) -> Sample:
    image = TrainingImage(name, ByteRange(name), (CaptionParts(),), ImageSettings(multiply))
    return Sample(image, folder_index, bucket, bucket)


def dataset(folders: list[tuple[Fraction, list[int]]]) -> Dataset:
    """Folders of (multiply, how many images in each of the buckets)."""
    samples: list[Sample] = []
    for index, (multiply, counts) in enumerate(folders):
        for bucket, count in zip(BUCKETS, counts, strict=True):
            samples += [sample(f"{index}/{len(samples) + n}", index, multiply, bucket) for n in range(count)]
    image_folders = tuple(ImageFolder(str(index), multiply, ()) for index, (multiply, _) in enumerate(folders))
    return Dataset(image_folders, tuple(samples), ())


def scheduled(data: Dataset, **settings: Any) -> BatchSchedule | None:
    """The schedule of a run; None where so few images at so small a multiply show nothing."""
    try:
        return BatchSchedule(data, TrainConfig(**settings))
    except UserError:
        return None


def batches_of(schedule: BatchSchedule) -> list[Batch]:
    """All batches of the run, in order."""
    return [batch for step in schedule.steps_after(0) for slot in step for batch in slot]


KEYS = st.integers(0, 2**64 - 1)
counts = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)
usual = st.sampled_from([Fraction(1), Fraction(2), Fraction(1, 4), Fraction("0.3"), Fraction("1.7")])
contents = st.lists(st.tuples(usual, counts), min_size=1, max_size=3)
extreme = usual | st.sampled_from([Fraction("0.001"), Fraction("0.037"), Fraction("12.5"), Fraction(50)])


@given(
    st.lists(st.tuples(extreme, counts), min_size=1, max_size=6),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 6),
    st.one_of(st.none(), st.integers(1, 12)),
)
def test_what_a_run_shows_is_what_was_asked(
    folders: list[tuple[Fraction, list[int]]],
    part: int,
    processes: int,
    accumulate: int,
    epochs: int,
    max_steps: int | None,
) -> None:
    """Whatever the shapes, the batch, the accumulation, the processes and the length: to within one image of each."""
    settings = {"gradient_accumulation_steps": accumulate, "max_train_steps": max_steps, "epochs": epochs}
    data = dataset(folders)
    schedule = scheduled(data, batch_size=part * processes, **settings)
    if schedule is None:
        return
    groups = [DistributedGroup(rank, processes) for rank in range(processes)]
    batches = [batch for step in schedule.steps_after(0) for group in groups for batch in group.shard(step)]
    shown = Counter(s for each in batches for s in each.sample_ids[: len(each.sample_ids) - each.padding])
    by_folder = Counter(data.samples[sample_id].folder_index for sample_id in shown.elements())
    told = schedule.images_by_folder()
    assert dict(by_folder) == {folder: count for folder, (_, count) in told.items() if count}
    begun = len(schedule.epoch_ends)
    whole = sum(sampler.epoch_span(begun - 1)[1] for sampler in schedule.samplers)
    per_epoch = sum(len(sampler.sample_ids) * sampler.multiply for sampler in schedule.samplers)
    run_epochs = Fraction(begun) if schedule.num_images == whole else schedule.num_images / per_epoch
    for sampler in schedule.samplers:
        asked = run_epochs * len(sampler.sample_ids) * sampler.multiply
        assert abs(by_folder[sampler.folder_index] - asked) <= 1
        times = [shown[sample_id] for sample_id in sampler.sample_ids]
        assert max(times) - min(times) <= 1, "none is shown twice before all were shown once"


@given(
    st.lists(st.fractions(Fraction(1, 100), 3), min_size=1, max_size=60),
    st.integers(1, 40),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(1, 12)),
)
def test_a_folder_of_many_multiplies_has_its_share(
    multiplies: list[Fraction], others: int, epochs: int, max_steps: int | None
) -> None:
    """As a table with a column multiply has, beside a folder without: however short the run."""
    own = [sample(f"0/{number}", 0, multiply, BUCKETS[0]) for number, multiply in enumerate(multiplies)]
    plain = [sample(f"1/{number}", 1, Fraction(1), BUCKETS[0]) for number in range(others)]
    folders = tuple(ImageFolder(str(index), Fraction(1), ()) for index in range(2))
    schedule = scheduled(Dataset(folders, (*own, *plain), ()), epochs=epochs, max_train_steps=max_steps, batch_size=4)
    assert schedule is not None
    shown = Counter(sample_id for batch in batches_of(schedule) for sample_id in batch.sample_ids)
    run_epochs = schedule.num_images / (sum(multiplies) + others) if max_steps else Fraction(epochs)
    assert abs(sum(shown[place] for place in range(len(own))) - run_epochs * sum(multiplies)) <= 1


@given(contents, st.integers(1, 9), st.integers(1, 3), st.integers(1, 4))
def test_each_epoch_shows_exactly_what_was_sampled(
    folders: list[tuple[Fraction, list[int]]], batch_size: int, accumulate: int, epochs: int
) -> None:
    data = dataset(folders)
    schedule = scheduled(data, batch_size=batch_size, gradient_accumulation_steps=accumulate, epochs=epochs)
    if schedule is None:
        return
    order = [sample_id for batch in batches_of(schedule) for sample_id in batch.sample_ids]
    begins = [0, *schedule.epoch_ends]
    for epoch in range(epochs):
        sampled = Counter(sample_epoch(schedule.samplers, 0, epoch).tolist())
        begin, end = begins[epoch], begins[epoch + 1]
        # a slot on the border of two epochs groups the images of both by bucket
        inner = Counter(order[begin + -begin % batch_size : end - end % batch_size])
        assert inner <= sampled and inner.total() >= sampled.total() - 2 * batch_size


@given(contents, st.integers(1, 9), st.integers(1, 3), st.one_of(st.none(), st.integers(1, 9)))
def test_every_step_is_whole_and_every_forward_pass_is_of_one_bucket(
    folders: list[tuple[Fraction, list[int]]], batch_size: int, accumulate: int, max_steps: int | None
) -> None:
    data = dataset(folders)
    settings = {"gradient_accumulation_steps": accumulate, "max_train_steps": max_steps, "epochs": 3}
    schedule = scheduled(data, batch_size=batch_size, **settings)
    if schedule is None:
        return
    steps = list(schedule.steps_after(0))
    assert len(steps) == schedule.num_steps
    for step in steps[:-1]:
        assert [sum(len(batch.sample_ids) for batch in slot) for slot in step] == [batch_size] * accumulate
    batches = batches_of(schedule)
    assert [index for batch in batches for index in batch.indices] == list(range(schedule.num_images))
    assert all(data.samples[s].bucket == batch.bucket for batch in batches for s in batch.sample_ids)
    assert all(len({batch.bucket for batch in slot}) == len(slot) for step in steps for slot in step)


@given(contents, st.integers(1, 5), st.integers(1, 3), st.one_of(st.none(), st.integers(1, 9)), st.data())
def test_a_run_can_go_on_from_any_step(
    folders: list[tuple[Fraction, list[int]]],
    batch_size: int,
    accumulate: int,
    max_steps: int | None,
    data: st.DataObject,
) -> None:
    settings = {"gradient_accumulation_steps": accumulate, "max_train_steps": max_steps, "epochs": 3}
    schedule = scheduled(dataset(folders), batch_size=batch_size, **settings)
    if schedule is None:
        return
    whole = list(schedule.steps_after(0))
    done = data.draw(st.integers(0, len(whole)))
    images_seen = min(done * schedule.step_size, schedule.num_images)
    assert list(schedule.steps_after(images_seen)) == whole[done:]


@pytest.mark.parametrize("batch_size", [1, 4, 8, 16])
def test_everydreams_example_shows_two_to_one_at_any_batch_size(batch_size: int) -> None:
    """50 training images, 1,000 of ground truth at multiply 0.025, in 17 shapes."""
    shapes = [(64 * (3 + place), 64 * (20 - place)) for place in range(17)]
    samples = [sample(f"own/{n}", 0, Fraction(1), shapes[n % 17]) for n in range(50)]
    samples += [sample(f"gt/{n}", 1, Fraction("0.025"), shapes[n * 7 % 17]) for n in range(1000)]
    folders = (ImageFolder("own", Fraction(1), ()), ImageFolder("gt", Fraction("0.025"), ()))
    schedule = scheduled(Dataset(folders, tuple(samples), ()), batch_size=batch_size, epochs=20)
    assert schedule is not None
    assert [shown for _, shown in schedule.images_by_folder().values()] == [1000, 500]
    shown = Counter(sample_id for batch in batches_of(schedule) for sample_id in batch.sample_ids)
    assert {shown[n] for n in range(50)} == {20} and sum(shown[n] for n in range(50, 1050)) == 500


def test_an_epoch_of_49_images_is_not_filled_to_64() -> None:
    schedule = scheduled(dataset([(Fraction(1), [49, 0, 0])]), batch_size=32, epochs=3)
    assert schedule is not None
    assert (schedule.num_images, schedule.num_steps) == (147, 5)
    assert [len(slot) for step in schedule.steps_after(0) for slot in step] == [1] * 5, "one shape needs one pass each"


def test_a_lone_wide_image_is_shown_as_often_as_the_others() -> None:
    schedule = scheduled(dataset([(Fraction(1), [32, 1, 0])]), batch_size=8, epochs=10)
    assert schedule is not None
    assert set(Counter(s for batch in batches_of(schedule) for s in batch.sample_ids).values()) == {10}


def test_multiplies_that_show_nothing_are_the_users_error() -> None:
    with pytest.raises(UserError, match="multiplies"):
        BatchSchedule(dataset([(Fraction("0.1"), [3, 0, 0])]), TrainConfig(epochs=2))


def test_images_of_one_batch_id_keep_to_themselves() -> None:
    samples = []
    for number in range(20):
        image = TrainingImage(
            str(number),
            ByteRange(str(number)),
            (CaptionParts(),),
            ImageSettings(batch_id="horses" if number < 7 else ""),
        )
        samples.append(Sample(image, 0, (512, 512), (512, 512)))
    schedule = BatchSchedule(
        Dataset((ImageFolder(".", Fraction(1), ()),), tuple(samples), ()), TrainConfig(batch_size=4, epochs=2)
    )
    for batch in batches_of(schedule):
        assert len({index < 7 for index in batch.sample_ids}) == 1
    assert schedule.buckets == [(512, 512)]


@given(st.lists(st.sampled_from(["", "", "a", "b"]), max_size=40), st.integers(2, 5), st.integers(0, 4), KEYS)
def test_batches_of_one_batch_id_go_into_one_step_as_far_as_there_are_so_many(
    ids: list[str], per_step: int, begin: int, key: int
) -> None:
    begin %= per_step
    order = pack_batch_ids(ids, begin, per_step, key)
    assert sorted(order) == list(range(len(ids))), "all of them, each once"
    packed = [ids[number] for number in order]
    steps = [packed[start : start + per_step] for start in range(begin, len(packed) - per_step + 1, per_step)]
    alike = sum(step[0] != "" and len(set(step)) == 1 for step in steps)
    assert alike >= min(len(steps), sum(ids.count(named) // per_step for named in "ab"))


def one_id(named: int, count: int, **settings: Any) -> list[bool]:
    """For each step of a run over `count` images, the first `named` of which share a batch_id, whether all have it."""
    samples = []
    for number in range(count):
        image = TrainingImage(
            str(number),
            ByteRange(str(number)),
            (CaptionParts(),),
            ImageSettings(batch_id="a" if number < named else ""),
        )
        samples.append(Sample(image, 0, (512, 512), (512, 512)))
    data = Dataset((ImageFolder(".", Fraction(1), ()),), tuple(samples), ())
    schedule = BatchSchedule(data, TrainConfig(batch_size=2, gradient_accumulation_steps=3, **settings))
    return [{batch.batch_id for slot in step for batch in slot} == {"a"} for step in schedule.steps_after(0)]


def test_steps_hold_one_batch_id() -> None:
    """18 images of one id in batches of 2, 3 a step: from the second epoch on, steps begin before the epoch does."""
    assert sum(one_id(18, 25, epochs=3)) >= 6
    # an epoch of 38 images ends in the middle of a step, and has three steps' worth of one id
    for seed in range(4):
        assert sum(one_id(18, 38, epochs=6, seed=seed)) == 18


def test_a_slot_of_several_batch_ids_spoils_no_step_of_one() -> None:
    """13 images of one id are 6 batches of 2, thus 2 steps, and one that shares a slot with another."""
    for seed in range(4):
        assert sum(one_id(13, 24, epochs=4, seed=seed)) == 8


def test_steps_of_one_batch_id_come_elsewhere_in_each_epoch_and_with_each_seed() -> None:
    order = one_id(18, 60, epochs=4)
    epochs = {tuple(order[begin : begin + 10]) for begin in range(0, 40, 10)}
    assert len(epochs) == 4 and all(sum(epoch) == 3 for epoch in epochs)
    assert one_id(18, 60, epochs=1, seed=1) != one_id(18, 60, epochs=1)


def test_an_image_with_a_multiply_of_its_own_has_a_sampler_of_its_own() -> None:
    multiplies = [Fraction(1), Fraction(1), Fraction(3), Fraction(1, 2), Fraction(1, 2)]
    samples = [
        Sample(
            TrainingImage(str(n), ByteRange(str(n)), (CaptionParts(),), ImageSettings(m)),
            0,
            (512, 512),
            (512, 512),
        )
        for n, m in enumerate(multiplies)
    ]
    samplers = make_samplers(Dataset((ImageFolder("a", Fraction(1), ()),), tuple(samples), ()))
    for epoch in range(4):
        counts = Counter(sample_epoch(samplers, 0, epoch).tolist())
        assert [counts[n] for n in range(3)] == [1, 1, 3] and counts[3] + counts[4] == 1


def test_steps_win_over_epochs_as_in_diffusers() -> None:
    """Longer than the epochs, too: further epochs are dealt from the same decks."""
    data = dataset([(Fraction(1), [10, 0, 0]), (Fraction("0.5"), [10, 0, 0])])
    by_steps = BatchSchedule(data, TrainConfig(batch_size=4, epochs=1, max_train_steps=30))
    by_epochs = BatchSchedule(data, TrainConfig(batch_size=4, epochs=8))
    assert (by_steps.num_steps, by_steps.num_images, len(by_steps.epoch_ends)) == (30, 120, 8)
    assert list(by_steps.steps_after(0)) == list(by_epochs.steps_after(0))


def test_steps_that_would_take_endless_epochs_are_refused() -> None:
    with pytest.raises(UserError, match=r"5 steps take more than 100,000 epochs.*lower max_train_steps"):
        BatchSchedule(dataset([(Fraction(0), [3, 0, 0])]), TrainConfig(batch_size=4, max_train_steps=5))


def test_buckets_come_in_another_order_in_each_epoch_and_with_each_seed() -> None:
    data = dataset([(Fraction(1), [16, 16, 16])])

    def order(epoch: int, seed: int) -> list[tuple[int, int]]:
        schedule = BatchSchedule(data, TrainConfig(batch_size=2, epochs=4, seed=seed))
        return [batch.bucket for batch in batches_of(schedule)[24 * epoch : 24 * epoch + 24]]

    orders = [tuple(order(epoch, seed)) for epoch in range(4) for seed in range(2)]
    assert len(set(orders)) == len(orders)


def test_what_is_left_of_the_buckets_is_mixed_otherwise_in_each_epoch_and_with_each_seed() -> None:
    data = dataset([(Fraction(1), [3, 3, 3])])

    def mixed(epoch: int, seed: int) -> tuple[tuple[int, int], ...]:
        schedule = BatchSchedule(data, TrainConfig(batch_size=9, epochs=8, seed=seed))
        return tuple(batch.bucket for batch in batches_of(schedule)[3 * epoch : 3 * epoch + 3])

    assert len({mixed(epoch, 0) for epoch in range(8)}) > 2
    assert len({mixed(0, seed) for seed in range(8)}) > 2


def test_an_epoch_that_is_cut_short_takes_back_nothing_of_those_before() -> None:
    """Rounded without regard to what was shown, the second folder would have shown 16 images after its 17."""
    of = {"0.001": 22, "0.3": 27, "0.95": 3, "0.1": 13}
    folders = [(Fraction(multiply), [images, 0, 0]) for multiply, images in of.items()]
    schedule = BatchSchedule(dataset(folders), TrainConfig(batch_size=25, max_train_steps=1))
    assert (schedule.shown_after(1), schedule.shown_after(2)) == ([0, 17, 5, 2], [0, 17, 6, 2])


def test_many_folders_of_a_part_of_an_image_have_their_share_together() -> None:
    """If each rounded down for itself, the first epoch would show none of them."""
    folders = [(Fraction(1), [10, 0, 0]), *[(Fraction("0.3"), [3, 0, 0])] * 30]
    one, three = (BatchSchedule(dataset(folders), TrainConfig(epochs=epochs)) for epochs in (1, 3))
    assert [sum(shown for _, shown in each.images_by_folder().values()) for each in (one, three)] == [37, 111]
    assert (one.images_by_folder()[0][1], three.images_by_folder()[0][1]) == (10, 30)


def test_padding_repeats_the_last_image_and_counts_itself() -> None:
    batch = Batch((512, 512), "", (4, 7), (10, 11))
    assert batch.padded(4) == Batch((512, 512), "", (4, 7, 7, 7), (10, 11, 11, 11), padding=2)
    assert batch.padded(2) == batch


def test_a_cut_short_run_divides_its_images_among_folders_before_their_multiplies() -> None:
    """10 images of multiplies of their own ask for 10.45 an epoch, and one of 10 for 10: of 5, they have 3 and 2."""
    many = [sample(f"many/{n}", 0, 1 + Fraction(n, 100), BUCKETS[0]) for n in range(10)]
    folders = (ImageFolder("many", Fraction(1), ()), ImageFolder("one", Fraction(10), ()))
    data = Dataset(folders, (*many, sample("one/0", 1, Fraction(10), BUCKETS[0])), ())
    schedule = BatchSchedule(data, TrainConfig(batch_size=1, max_train_steps=5))
    assert {index: shown for index, (_, shown) in schedule.images_by_folder().items()} == {0: 3, 1: 2}


def test_so_many_images_are_counted_by_folder_and_no_more() -> None:
    schedule = BatchSchedule(dataset([(Fraction(1), [9, 0, 0]), (Fraction(1), [9, 0, 0])]), TrainConfig(batch_size=1))
    for images_seen in (0, 1, 7, 18):
        assert sum(shown for _, shown in schedule.images_by_folder(images_seen).values()) == images_seen


def test_forward_passes_are_counted_over_the_first_epoch_whatever_a_step_holds() -> None:
    data = dataset([(Fraction(1), [5, 6, 7]), (Fraction(1), [3, 9, 2])])
    alone, together = (
        BatchSchedule(data, TrainConfig(batch_size=4, gradient_accumulation_steps=count)) for count in (1, 4)
    )
    first = [slot for step in alone.steps_after(0) for slot in step][: 32 // 4]
    assert together.mean_forward_passes() == alone.mean_forward_passes() == sum(map(len, first)) / len(first) > 1


def test_decks_of_one_folder_are_shuffled_each_for_itself() -> None:
    samples = [sample(f"a/{n}", 0, Fraction(1 + n % 2), BUCKETS[0]) for n in range(40)]
    one, two = make_samplers(Dataset((ImageFolder("a", Fraction(1), ()),), tuple(samples), ()))
    orders = [[list(s.sample_ids).index(place) for place in s.sample_span(0, 0, 20)] for s in (one, two)]
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]


def test_an_image_that_is_broken_asks_for_nothing() -> None:
    data = dataset([(Fraction(1), [8, 0, 0]), (Fraction(1), [8, 0, 0])])
    rest = data.without([Problem(each.name, "truncated") for each in data.samples[:4]])
    schedule = BatchSchedule(rest, TrainConfig(batch_size=1, epochs=1))
    assert {index: shown for index, (_, shown) in schedule.images_by_folder().items()} == {0: 4, 1: 8}
