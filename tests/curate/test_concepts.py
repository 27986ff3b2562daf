"""What images show, and which of it stays out of rehearsal."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.curate.concepts import FREQUENT, PLENTY, choose_unrehearsed, follow


def test_labels_nouns_and_the_list_are_one_set_of_names() -> None:
    captions = ["a dog on a sofa"] * 20 + ["an animal"] * 20 + ["a red fire truck"] + ["a tree"] * 59
    found = follow(captions, [["Dog"]] * 20 + [["dog", "cat"]] * 20 + [None] * 60, ["Fire truck", "red"])
    assert found[0] == {"dog", "sofa"}
    assert found[20] == {"dog", "cat", "animal"}
    assert found[40] == {"fire truck", "red"}
    assert found[99] == set(), "more than half show a tree, which is the mean"


def test_what_few_images_show_is_not_followed() -> None:
    captions = ["a dog"] * (FREQUENT - 1) + ["a cat"] * FREQUENT + ["a tree"] * 100
    assert frozenset().union(*follow(captions, [None] * len(captions), [])) == {"cat"}


def plenty(count: int = PLENTY) -> list[frozenset[str]]:
    """Concepts of 2, 3, 4 and 40 % of the images."""
    names = (("umbrella", 0.02), ("kite", 0.03), ("boat", 0.04), ("man", 0.4))
    rng = np.random.default_rng(0)
    return [frozenset(name for name, share in names if rng.random() < share) for _ in range(count)]


@given(st.floats(0, 0.5), st.integers(0, 50), st.sets(st.sampled_from(["umbrella", "kite", "boat", "man"])))
def test_at_most_the_share_stays_out_and_nothing_that_is_needed(share: float, seed: int, needed: set[str]) -> None:
    concepts = plenty()
    chosen = choose_unrehearsed(concepts, share, needed, seed)
    assert not chosen & needed
    assert sum(bool(names & chosen) for names in concepts) <= share * len(concepts)
    assert chosen or share < 0.5 or needed == {"umbrella", "kite", "boat", "man"}


def test_of_little_ground_truth_nothing_stays_out() -> None:
    assert not choose_unrehearsed(plenty(PLENTY - 1), 0.5, set(), 0)
    assert not choose_unrehearsed(plenty(), 0.0, set(), 0)
    assert choose_unrehearsed(plenty(), 0.05, set(), 0)
