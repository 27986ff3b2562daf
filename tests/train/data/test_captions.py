"""The words of each showing: functions of the seed and the sample's index."""

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.caption.parts import CaptionParts
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import CaptionBuilder, check_words, shuffle_tags
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.data.image import ByteRange, ImageFolder, ImageSettings, TrainingImage

CAPTION = "a car, red, old, on a road"


def sample(*captions: str | CaptionParts, **settings: Any) -> Sample:
    parts = tuple(each if isinstance(each, CaptionParts) else CaptionParts(each) for each in captions or [CAPTION])
    return Sample(TrainingImage("x", ByteRange("x"), parts, ImageSettings(**settings)), 0, (8, 8), (8, 8))


tags = st.lists(st.text("abc ", min_size=1, max_size=4).filter(str.strip), max_size=6)


@given(st.text("xyz ", min_size=1, max_size=5).filter(str.strip), tags, st.integers(0, 4), st.integers(0, 2**63))
def test_shuffling_keeps_the_prompt_the_kept_tags_and_all_others(
    prompt: str, tags: list[str], keep_tags: int, key: int
) -> None:
    parts = [prompt.strip(), *(tag.strip() for tag in tags)]
    shuffled = shuffle_tags(CaptionParts(",".join([prompt, *tags])), keep_tags, key).split(", ")
    assert shuffled[: 1 + keep_tags] == parts[: 1 + keep_tags]
    assert Counter(shuffled) == Counter(parts)


def test_shuf_01_kept_tags_are_kept() -> None:
    """There, keep_tags has no effect."""
    orders = {shuffle_tags(CaptionParts("p, a, b, c, d, e"), 2, key) for key in range(50)}
    assert len(orders) == 6 and all(order.startswith("p, a, b, ") for order in orders)


def test_every_order_is_as_likely_and_heavier_tags_come_first_more_often() -> None:
    orders = Counter(shuffle_tags(CaptionParts("p, a, b, c"), 0, key * 7919) for key in range(6000))
    assert len(orders) == 6 and max(orders.values()) < 1.15 * min(orders.values())
    weighted = CaptionParts("p", tags=(("a", 2.0), ("b", 1.0), ("c", 1.0)))
    first = Counter(shuffle_tags(weighted, 0, key * 7919).split(", ")[1] for key in range(6000))
    assert first["a"] / 6000 == pytest.approx(0.5, abs=0.02) and first["b"] / 6000 == pytest.approx(0.25, abs=0.02)


def test_shuf_02_a_length_is_not_exceeded() -> None:
    assert all(len(shuffle_tags(CaptionParts("p, aaaa, bbbb, cc"), 0, key, max_length=9)) <= 9 for key in range(20))


def test_a_main_prompt_and_a_tag_stay_whole() -> None:
    """Neither shuffling nor a maximum length tears them, and a tag with a comma keeps its weight."""
    prompt = "a portrait of ted, red, oil on canvas, blue"
    parts = CaptionParts(prompt, whole=True, tags=(("soft, warm light", 9.0), ("old", 1.0), ("red", 1.0)))
    shuffled = [shuffle_tags(parts, 0, key) for key in range(300)]
    assert set(shuffled) == {f"{prompt}, soft, warm light, old", f"{prompt}, old, soft, warm light"}
    assert sum(each.endswith("old") for each in shuffled) / 300 == pytest.approx(0.9, abs=0.06)
    assert {shuffle_tags(parts, 0, key, max_length=10) for key in range(9)} == {prompt}
    assert parts.caption == f"{prompt}, soft, warm light, old"


def test_without_a_main_prompt_no_comma_comes_first() -> None:
    assert {shuffle_tags(CaptionParts("", tags=(("a", 1.0), ("b", 1.0))), 0, key) for key in range(9)} == {
        "a, b",
        "b, a",
    }


def test_one_of_several_captions_is_chosen_at_each_showing() -> None:
    """Each as often, by seed and showing alone, so that a resumed run goes on with the same."""
    builder = CaptionBuilder(TrainConfig(caption_dropout_rate=0))
    several = sample("one", "two, of three", "three")
    shown = builder.build([several] * 900, range(900))
    assert set(Counter(shown)) == {"one", "two, of three", "three"} and min(Counter(shown).values()) > 250
    assert builder.build([several] * 9, range(500, 509)) == shown[500:509]
    assert CaptionBuilder(TrainConfig(caption_dropout_rate=0, seed=1)).build([several] * 900, range(900)) != shown
    assert builder.fixed_captions([several]) == ["", "one", "two, of three", "three"]


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


def test_which_caption_is_shown_does_not_hang_on_which_are_dropped() -> None:
    builder = CaptionBuilder(TrainConfig(caption_dropout_rate=0.5))
    shown = Counter(builder.build([sample("one", "two")] * 400, range(400)))
    assert shown[""] == pytest.approx(200, abs=40)
    assert shown["one"] == pytest.approx(100, abs=40) and shown["two"] == pytest.approx(100, abs=40)


def test_a_caption_may_be_just_as_long_as_it_may_be() -> None:
    assert shuffle_tags(CaptionParts("p, ab"), 0, 7, max_length=5) == "p, ab"
    assert shuffle_tags(CaptionParts("p, ab"), 0, 7, max_length=4) == "p"


@pytest.mark.parametrize(
    ("caption", "says"),
    [
        ("an rc-car, red", True),
        ("(rc-car)", True),
        ("An RC-Car", True),
        ("an rc-cars", False),
        ("my-rc-car", False),
        ("rc-car-like", False),
    ],
)
def test_a_new_word_is_a_word_of_its_own(caption: str, says: bool) -> None:
    data = Dataset((ImageFolder(".", Fraction(1), ()),), (sample("a dog", caption),), ())
    config = TrainConfig(embeddings=["rc-car=toy car"])
    if says:
        check_words(data, config)
    else:
        with pytest.raises(UserError, match="no caption says rc-car"):
            check_words(data, config)


def test_captions_with_the_class_word_are_known_before_the_run() -> None:
    config = TrainConfig(class_preservation=1.0, concept_word="ted", class_word="bear")
    fixed = CaptionBuilder(config).fixed_captions([sample("a ted, red"), sample("a teddy")])
    assert set(fixed) == {"", "a ted, red", "a bear, red", "a teddy"}


@pytest.mark.parametrize(("caption", "says"), [("a photo of Ted", True), ("TED, red", True), ("a teddy", False)])
def test_a_concept_whose_class_is_preserved_is_in_a_caption(caption: str, says: bool) -> None:
    data = Dataset((ImageFolder(".", Fraction(1), ()),), (sample("a dog"), sample(caption)), ())
    config = TrainConfig(class_preservation=1.0, concept_word="ted", class_word="bear")
    if says:
        check_words(data, config)
        assert any("bear" in each for each in CaptionBuilder(config).fixed_captions(data.samples))
    else:
        with pytest.raises(UserError, match="no caption says ted, so nothing would be preserved"):
            check_words(data, config)
