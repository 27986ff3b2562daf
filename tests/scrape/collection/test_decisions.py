"""Decisions: the last word counts, a hand's before a rule's, and an undo takes it back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.collection.decisions import (
    HAND,
    SUBJECTS,
    Decision,
    Decisions,
    What,
    decision_parts,
    digest,
    next_time,
    read_decisions,
)

RULE = "where aesthetic < 4"


def said(key: str, what: What, value: str | None = None, who: str = HAND, undo: bool = False) -> Decision:
    return Decision(key, "2026-01-01T00:00:00.000000Z", what, value, None, who, undo)


def test_the_last_word_counts_and_an_undo_brings_back_the_one_before() -> None:
    rows = [said("a", What.DROP), said("a", What.KEEP), said("b", What.DROP), said("a", What.CAPTION, "a dog")]
    decisions = Decisions(rows)
    assert {key: d.what for key, d in decisions.standing(What.KEEP, What.DROP).items()} == {"a": "keep", "b": "drop"}
    assert decisions.standing(What.CAPTION)["a"].value == "a dog"
    taken_back = Decisions([*rows, said("a", What.KEEP, undo=True), said("b", What.DROP, undo=True)])
    assert {key: d.what for key, d in taken_back.standing(What.KEEP, What.DROP).items()} == {"a": "drop"}


def test_a_hand_beats_a_rule_whichever_came_later() -> None:
    decisions = Decisions([said("a", What.KEEP), said("a", What.DROP, who=RULE), said("b", What.DROP, who=RULE)])
    assert {key: d.what for key, d in decisions.standing(What.KEEP, What.DROP).items()} == {"a": "keep", "b": "drop"}


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    first = [said("a", What.CAPTION, "é \n"), said("b", What.DROP)]
    Collection(tmp_path).add_decisions(first)
    Collection(tmp_path).add_decisions([])
    Collection(tmp_path).add_decisions([said("a", What.CAPTION, "", RULE, undo=True)])
    assert read_decisions(tmp_path).rows == [*first, said("a", What.CAPTION, "", RULE, undo=True)]
    assert len(decision_parts(tmp_path)) == 2
    assert len(Collection(tmp_path).query("select * from decisions where undo")) == 1


def test_recipes_know_what_was_said_and_not_when() -> None:
    word = said("a", What.DROP)
    assert digest([]) == ""
    assert digest([word, said("b", What.DROP)]) == digest([said("b", What.DROP), word._replace(time="later")])
    assert digest([word]) != digest([word._replace(reason="blurred")])


def test_time_goes_on_where_the_clock_was_set_back(tmp_path: Path) -> None:
    Collection(tmp_path).add_decisions([Decision("a", "2999-01-01T00:00:00.000000Z", What.DROP)])
    decisions = [read_decisions(tmp_path), read_decisions(tmp_path / "other")]
    assert next_time(decisions) == "2999-01-01T00:00:00.000001Z"


def test_a_damaged_part_is_one_sentence(tmp_path: Path) -> None:
    Collection(tmp_path).add_decisions([said("a", What.DROP)])
    decision_parts(tmp_path)[0].write_bytes(b"no parquet")
    with pytest.raises(UserError, match="can't be read"):
        read_decisions(tmp_path)


words = st.builds(
    said,
    st.sampled_from("ab"),
    st.sampled_from([What.KEEP, What.DROP, What.CAPTION]),
    st.sampled_from([None, "x", "y"]),
    st.sampled_from([HAND, RULE]),
    st.booleans(),
)


@given(st.lists(words, max_size=12))
def test_any_sequence_is_as_if_each_had_its_own_pile(rows: list[Decision]) -> None:
    piles: dict[tuple[str, str], list[Decision]] = {}
    for row in rows:
        pile = piles.setdefault((row.key, SUBJECTS[row.what]), [])
        if row.undo:
            del pile[-1:]
        else:
            pile.append(row)
    tops = {subject: ([w for w in pile if w.who == HAND] or pile)[-1] for subject, pile in piles.items() if pile}
    assert {(d.key, SUBJECTS[d.what]): d for d in Decisions(rows).counting()} == tops
