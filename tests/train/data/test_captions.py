"""The words of each showing: functions of the seed and the sample's index."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import CaptionBuilder, shuffle_tags
from dreamloom.train.data.dataset import Sample
from dreamloom.train.data.image import ByteRange, ImageSettings, TrainingImage

CAPTION = "a car, red, old, on a road"


def sample(caption: str = CAPTION, weights: tuple[tuple[str, float], ...] = (), **settings: Any) -> Sample:
    return Sample(
        TrainingImage("x", ByteRange(Path("x")), caption, ImageSettings(**settings), weights), 0, (8, 8), (8, 8)
    )


tags = st.lists(st.text("abc ", min_size=1, max_size=4).filter(str.strip), max_size=6)


@given(st.text("xyz ", max_size=5), tags, st.integers(0, 4), st.integers(0, 2**63))
def test_shuffling_keeps_the_prompt_the_kept_tags_and_all_others(
    prompt: str, tags: list[str], keep_tags: int, key: int
) -> None:
    parts = [prompt.strip(), *(tag.strip() for tag in tags)]
    shuffled = shuffle_tags(",".join([prompt, *tags]), keep_tags, key).split(", ")
    assert shuffled[: 1 + keep_tags] == parts[: 1 + keep_tags]
    assert Counter(shuffled) == Counter(parts)


def test_shuf_01_kept_tags_are_kept() -> None:
    """There, keep_tags has no effect."""
    orders = {shuffle_tags("p, a, b, c, d, e", 2, key) for key in range(50)}
    assert len(orders) == 6 and all(order.startswith("p, a, b, ") for order in orders)


def test_every_order_is_as_likely_and_heavier_tags_come_first_more_often() -> None:
    orders = Counter(shuffle_tags("p, a, b, c", 0, key * 7919) for key in range(6000))
    assert len(orders) == 6 and max(orders.values()) < 1.15 * min(orders.values())
    first = Counter(shuffle_tags("p, a, b, c", 0, key * 7919, {"a": 2.0}).split(", ")[1] for key in range(6000))
    assert first["a"] / 6000 == pytest.approx(0.5, abs=0.02) and first["b"] / 6000 == pytest.approx(0.25, abs=0.02)


def test_shuf_02_a_length_is_not_exceeded() -> None:
    assert all(len(shuffle_tags("p, aaaa, bbbb, cc", 0, key, max_length=9)) <= 9 for key in range(20))


def test_each_showing_has_an_order_of_its_own_and_images_with_as_many_tags_have_others() -> None:
    builder = CaptionBuilder(TrainConfig(shuffle_tags=True, caption_dropout_rate=0))
    shown = builder.build([sample()] * 300, range(300))
    assert len(set(shown)) == 6
    assert builder.build([sample()] * 7, range(40, 47)) == shown[40:47]
    assert (
        CaptionBuilder(TrainConfig(shuffle_tags=True, caption_dropout_rate=0, seed=1)).build(
            [sample()] * 300, range(300)
        )
        != shown
    )


def test_what_an_image_says_replaces_what_the_config_says() -> None:
    config = TrainConfig(shuffle_tags=True, caption_dropout_rate=0.5)
    builder = CaptionBuilder(config)
    assert set(builder.build([sample(shuffle_tags=False, cond_dropout=0.0)] * 50, range(50))) == {CAPTION}
    assert set(builder.build([sample(cond_dropout=1.0)] * 50, range(50))) == {""}
    assert builder.build([sample()] * 400, range(400)).count("") / 400 == pytest.approx(0.5, abs=0.08)
    limited = CaptionBuilder(TrainConfig(caption_dropout_rate=0)).build(
        [sample(shuffle_tags=True, max_caption_length=10)] * 50, range(50)
    )
    assert max(map(len, limited)) <= 10


def test_captions_that_never_change_are_known_before() -> None:
    builder = CaptionBuilder(TrainConfig())
    assert builder.fixed_captions([sample("b"), sample("a", shuffle_tags=True)]) == ["", "b"]
