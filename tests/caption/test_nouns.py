"""The nouns that captions share, by a plain rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.caption.nouns import find_all_nouns, find_nouns, followed, mentions, shared_nouns


@pytest.mark.parametrize(
    ("caption", "nouns"),
    [
        ("a big red heart on a white background", {"heart", "background"}),
        ("Two dogs running in the snow.", {"dogs", "snow"}),
        ("a man with his mother's umbrella, Paris 1999", {"man", "umbrella", "paris"}),
        ("a living room", {"room"}),
        ("ein Hund im Garten", {"garten"}),
        ("une église", {"église"}),
        ("", set()),
        ("of the in", set()),
    ],
)
def test_the_last_word_of_a_piece_is_a_noun(caption: str, nouns: set[str]) -> None:
    assert find_nouns(caption) == nouns


def test_a_noun_is_shared_if_enough_captions_have_it_and_not_most() -> None:
    captions = ["a dog in a park", "two dogs on a sofa", "a cat on a sofa", "a cat", "a bird", "a photo"]
    captions = [f"{caption}, scene" for caption in captions]
    assert [set(nouns) for nouns in shared_nouns(captions, 2)] == [
        {"dog"},
        {"dog", "sofa"},
        {"cat", "sofa"},
        {"cat"},
        set(),
        set(),
    ]
    assert set().union(*shared_nouns(captions, 2, most=1)) == {"cat"}, "the first by name, of equal ones"


@given(st.lists(st.text("aegis nou-t.é9", max_size=30), max_size=12), st.integers(1, 4))
def test_any_text_has_nouns_that_are_shared_by_rule_and_the_order_of_captions_is_no_matter(
    captions: list[str], at_least: int
) -> None:
    found = shared_nouns(captions, at_least)
    assert len(found) == len(captions)
    for noun in frozenset().union(*found):
        assert at_least <= sum(noun in nouns for nouns in found) <= len(captions) / 2
    assert shared_nouns(captions[::-1], at_least) == found[::-1]


WORDS = st.sampled_from(
    ["the cat", "cats", "cat's", "fox", "foxes", "berry", "berries", "running", "a", "é", "½", "o’clock"]
)


@given(st.lists(st.lists(WORDS | st.sampled_from([" ", ", ", "-"]), max_size=8).map("".join) | st.text(), max_size=6))
def test_all_captions_at_once_have_the_nouns_that_each_has_alone(captions: list[str]) -> None:
    alone = [find_nouns(caption) for caption in captions]
    nouns = frozenset[str]().union(*alone)

    def singular(noun: str) -> str:
        ends = [("s", ""), ("es", ""), ("ies", "y")]
        known = (noun.removesuffix(end) + instead for end, instead in ends if noun.endswith(end))
        return next((word for word in known if word in nouns), noun)

    assert find_all_nouns(captions) == [frozenset(map(singular, found)) for found in alone]


@given(st.lists(st.text("ab é.", max_size=9), max_size=12), st.integers(1, 3), st.integers(1, 3))
def test_shared_nouns_are_those_that_are_followed_of_all(captions: list[str], at_least: int, most: int) -> None:
    captions = [caption.replace("a", "dogs ").replace("b", "cat ") for caption in captions]
    assert shared_nouns(captions, at_least, most) == followed(find_all_nouns(captions), at_least, most)


def test_a_word_that_is_no_noun_of_any_caption_is_no_singular() -> None:
    assert find_all_nouns(["cat food", "two cats"]) == [{"food"}, {"cats"}]


def test_a_phrase_is_found_as_whole_words() -> None:
    assert mentions("Fire truck", "a red fire truck.") and mentions("cat", "Cat!")
    assert not mentions("cat", "a category") and not mentions("fire truck", "a truck on fire")
