"""Of a source of ground truth that has more images than are wanted, so many go on, and the trace says why."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from dreamloom.base.errors import UserError
from dreamloom.curate.choose import choose
from dreamloom.curate.config import ChooseConfig, NearDuplicates, Selection
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Choice, Collection, Table
from tests.curate.test_choose import add_scores, keys

Make = Callable[..., Collection]


def at(degrees: float, hashed: int) -> Mapping[str, Any]:
    """Scores of an image in a world of two dimensions; hashes far apart, so that none is a near duplicate."""
    angle = np.deg2rad(degrees)
    return {"embedding": [np.cos(angle), np.sin(angle)], "phash": int(np.uint64(hashed * 0x9E3779B97F4A7C15 % 2**63))}


def kept(collection: Collection) -> list[str]:
    return [row["key"] for row in collection.read(Table.CHOICES).to_pylist() if row["choice"] == Choice.KEPT]


@pytest.fixture
def sources(make_collection: Make) -> list[Source]:
    """Training images at 90°; ground truth: a crowd of 8 at 0 to 7°, one at 50°, one at 88°."""
    car = add_scores(make_collection("car", keys(2, 100)), [at(90, 1), at(91, 2)])
    degrees = [*range(8), 50, 88]
    people = add_scores(make_collection("people", keys(10)), [at(d, 3 + i) for i, d in enumerate(degrees)])
    return [Source(people, Role.GROUND_TRUTH), Source(car, Role.TRAINING)]


def test_nearest_takes_what_is_like_the_training_images(sources: list[Source]) -> None:
    summary = choose(sources, ChooseConfig(max_ground_truth=2, select_by=Selection.NEAREST))
    assert kept(sources[0].collection) == ["k08", "k09"]
    assert summary.dropped == {"surplus": 8}
    assert len(kept(sources[1].collection)) == 2  # training images are never surplus


def test_variety_takes_one_of_each_kind(sources: list[Source], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dreamloom"):
        choose(sources, ChooseConfig(max_ground_truth=3, select_by=Selection.VARIETY))
    selected = kept(sources[0].collection)
    assert {"k08", "k09"} < set(selected) and len(selected) == 3
    assert "3 of 10 images selected by variety; coverage 0.99" in caplog.text


def test_a_mix_takes_half_of_each(sources: list[Source]) -> None:
    choose(sources, ChooseConfig(max_ground_truth=2, select_by=Selection.MIX))
    near, other = sorted(kept(sources[0].collection), reverse=True)
    assert near == "k09" and other < "k08"


def test_random_needs_no_scores_and_its_seed_decides(make_collection: Make) -> None:
    people = Source(make_collection("people", keys(40)), Role.GROUND_TRUTH)
    selections = []
    for seed in (0, 0, 1):
        choose([people], ChooseConfig(max_ground_truth=10, select_seed=seed, near_duplicates=NearDuplicates.OFF))
        selections.append(kept(people.collection))
    assert [len(selection) for selection in selections] == [10, 10, 10]
    assert selections[0] == selections[1] != selections[2]
    row = next(row for row in people.collection.read(Table.CHOICES).to_pylist() if row["choice"] == Choice.SURPLUS)
    assert row["detail"] == "more than 10, by random"


@pytest.mark.parametrize(("select_by", "mend"), [("variety", "people has none; run score"), ("nearest", "run score")])
def test_without_scores_the_sentence_says_what_to_do(make_collection: Make, select_by: str, mend: str) -> None:
    people = Source(make_collection("people", keys(4)), Role.GROUND_TRUTH)
    with pytest.raises(UserError, match=mend):
        choose([people], ChooseConfig(max_ground_truth=2, select_by=Selection(select_by)))
