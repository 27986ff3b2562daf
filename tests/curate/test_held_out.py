"""Which images are held out: a share of each source, copies together, and some of every frequent concept."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.curate.held_out import Candidate, at_most, count_held_out, select_held_out


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 10**4), max_size=6), st.floats(0, 0.999), st.integers(0, 99))
def test_some_are_held_out_and_some_are_left(images: dict[str, int], share: float, most: int) -> None:
    counts = count_held_out(images, share, most)
    assert counts.keys() == images.keys()
    assert sum(counts.values()) <= most
    for name, count in counts.items():
        assert 0 <= count < max(1, images[name])
        assert count == 0 or share > 0
    if share and most >= sum(images.values()):
        assert all(counts[name] >= 1 for name, there in images.items() if there >= 2)


def test_a_maximum_is_divided_in_proportion() -> None:
    assert at_most({"a": 30, "b": 10}, 8) == {"a": 6, "b": 2}
    assert at_most({"a": 3, "b": 1}, 8) == {"a": 3, "b": 1}


def of_keys(keys: Sequence[str]) -> list[Candidate]:
    return [Candidate(row, key, "people") for row, key in enumerate(keys)]


def selected(candidates: Sequence[Candidate], count: int, seed: int = 0) -> set[str]:
    rows = select_held_out(candidates, {"people": count}, seed, Counter(c.copies for c in candidates if c.copies))
    return {candidate.key for candidate in candidates if candidate.row in rows}


@given(st.sets(st.text(min_size=1, max_size=5), min_size=3, max_size=40), st.integers(0, 3), st.data())
def test_an_image_that_comes_changes_one_of_those_held_out_at_most(
    keys: set[str], seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(keys) - 1))
    new = data.draw(st.text(min_size=6, max_size=7))
    before, after = (selected(of_keys(sorted(k)), count, seed) for k in (keys, keys | {new}))
    assert len(before) == len(after) == count
    assert len(before - after) <= 1
    assert before == selected(of_keys(sorted(keys, reverse=True)), count, seed)


def test_another_seed_holds_out_others() -> None:
    candidates = of_keys([f"k{number}" for number in range(100)])
    assert selected(candidates, 20, 0) != selected(candidates, 20, 1)


candidates_of = st.lists(
    st.tuples(st.sampled_from("ab"), st.frozensets(st.sampled_from("xyz")), st.integers(0, 6)), min_size=2, max_size=60
)


@given(candidates_of, st.integers(0, 20), st.integers(0, 20), st.integers(0, 2))
def test_copies_stay_together_and_no_source_gives_more_than_its_part(
    images: list[tuple[str, frozenset[str], int]], of_a: int, of_b: int, seed: int
) -> None:
    candidates = [
        Candidate(row, f"k{row}", source, concepts, group or None)
        for row, (source, concepts, group) in enumerate(images)
    ]
    sizes = Counter(c.copies for c in candidates if c.copies)
    rows = select_held_out(candidates, {"a": of_a, "b": of_b}, seed, sizes)
    for source, most in (("a", of_a), ("b", of_b)):
        assert sum(c.source == source for c in candidates if c.row in rows) <= most
    for group in sizes:
        members = {c.row for c in candidates if c.copies == group}
        assert members <= rows or not members & rows
        assert not members & rows or len({c.source for c in candidates if c.row in members}) == 1
    alone = [c for c in candidates if c.copies is None and c.source == "a"]
    assert sum(c.row in rows for c in alone) >= min(of_a, len(alone)) - sum(sizes.values())


def test_a_group_of_which_another_source_trains_on_a_copy_is_not_held_out() -> None:
    candidates = [Candidate(0, "a", "people", copies=7), Candidate(1, "b", "people")]
    assert select_held_out(candidates, {"people": 2}, 0, {7: 2}) == {1}


def test_every_frequent_concept_has_images_and_the_count_stays() -> None:
    """2 % umbrellas of 1,000: of 30 held out at random there are 0 or 1."""
    candidates = [
        Candidate(row, f"k{row}", "ab"[row % 2], frozenset({"umbrella"} if row % 50 == 0 else {"man"}))
        for row in range(1000)
    ]
    rows = select_held_out(candidates, {"a": 15, "b": 15}, 0, {})
    shown = Counter(name for c in candidates if c.row in rows for name in c.concepts)
    assert shown == {"umbrella": 5, "man": 25}
    assert Counter(c.source for c in candidates if c.row in rows) == {"a": 15, "b": 15}


def test_concepts_that_have_enough_change_nothing() -> None:
    plain = [Candidate(row, f"k{row}", "a") for row in range(100)]
    halves = [Candidate(row, f"k{row}", "a", frozenset({"xy"[row % 2]})) for row in range(100)]
    assert select_held_out(plain, {"a": 40}, 0, {}) == select_held_out(halves, {"a": 40}, 0, {})


def test_a_rare_concept_keeps_three_quarters_of_its_images_for_training() -> None:
    candidates = [Candidate(row, f"k{row}", "a", frozenset({"rare"} if row < 8 else ())) for row in range(400)]
    rows = select_held_out(candidates, {"a": 10}, 0, {})
    assert sum(row < 8 for row in rows) == 2


@pytest.mark.parametrize(
    ("images", "share", "most", "held_out"),
    [
        ({"a": 2}, 0.9, 99, {"a": 1}),  # of two, one is left
        ({"a": 6}, 0.25, 99, {"a": 2}),  # a half is rounded up
        ({"a": 6}, 0.24, 99, {"a": 1}),
        ({"a": 40, "b": 40}, 0.1, 8, {"a": 4, "b": 4}),
        ({"a": 40, "b": 40}, 0.1, 7, {"a": 4, "b": 3}),  # one more than may be
        ({"a": 1, "b": 9}, 0.1, 99, {"a": 0, "b": 1}),
    ],
)
def test_so_many_are_held_out(images: dict[str, int], share: float, most: int, held_out: dict[str, int]) -> None:
    assert count_held_out(images, share, most) == held_out
