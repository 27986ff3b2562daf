"""Words are whole and literal, in Python's own words; compared with DuckDB's answers."""

import re
import unicodedata

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dreamloom.scrape.index.words import UNSPACED, Words, words_predicate


def fold(letter: str) -> str:
    """Unicode's simple case folding (CaseFolding.txt, C and S)."""
    for folded in (letter.casefold(), letter.lower()):
        if len(folded) == 1:
            return folded
    return letter


def holds(text: str, word: str) -> bool:
    """The law of scrape/index/words.py, character by character."""

    def part_of_word(place: int) -> bool:
        if not 0 <= place < len(text) or UNSPACED.match(text[place]):
            return False
        return text[place] == "_" or unicodedata.category(text[place])[0] in "LNM"

    tokens = [[fold(c) for c in token] for token in word.split()]

    def ends(start: int, tokens: list[list[str]]) -> set[int]:
        here = start + len(tokens[0])
        if [fold(c) for c in text[start:here]] != tokens[0]:
            return set()
        if len(tokens) == 1:
            return {here}
        ends_found: set[int] = set()
        after = here
        while after < len(text) and text[after].isspace():
            after += 1
            ends_found |= ends(after, tokens[1:])
        return ends_found

    begins, finishes = UNSPACED.match(word.split()[0][0]), UNSPACED.match(word.split()[-1][-1])
    return any(
        (begins or not part_of_word(start - 1))
        and any(finishes or not part_of_word(end) for end in ends(start, tokens))
        for start in range(len(text) + 1)
    )


DATABASE = duckdb.connect()


def answers(words: Words, texts: list[str | None]) -> list[bool]:
    condition = words_predicate(words, "t") or "true"
    return [
        bool(v) for (v,) in DATABASE.execute(f"SELECT {condition} FROM (SELECT unnest(?) AS t)", [texts]).fetchall()
    ]


LETTERS = "aAbsSkK+#.-_ 1éÉßσςΣ\n\u0301'ſ猫の"
SOME_WORDS = st.lists(st.text(LETTERS, min_size=1, max_size=3).filter(lambda w: w.split()), max_size=3)


@pytest.mark.slow
@given(
    texts=st.lists(st.text(LETTERS, max_size=9), min_size=1, max_size=20),
    any_=SOME_WORDS,
    all_=SOME_WORDS,
    none=SOME_WORDS,
)
def test_words_are_whole_and_literal(texts: list[str], any_: list[str], all_: list[str], none: list[str]) -> None:
    texts = [unicodedata.normalize("NFC", text) for text in texts]

    def stands(text: str, word: str) -> bool:
        spelled = (unicodedata.normalize(form, same) for form in ("NFC", "NFD") for same in (word, word.casefold()))
        return any(holds(text, spelling) for spelling in spelled)

    expected = [
        (not any_ or any(stands(t, w) for w in any_))
        and all(stands(t, w) for w in all_)
        and not any(stands(t, w) for w in none)
        for t in texts
    ]
    assert answers(Words(any=any_, all=all_, none=none), list(texts)) == expected


@pytest.mark.parametrize(
    ("word", "text", "expected"),
    [
        ("person", "A PERSON, walking", True),
        ("person", "personal effects", False),
        ("person", "two persons", False),
        ("C++", "Learn C++, today", True),
        ("c++", "C++11", False),
        ("a.b", "axb", False),
        ("new york", "New \n York city", True),
        ("new york", "newyork", False),
        ("straße", "STRAẞE", True),
        ("Straße", "GROSSE STRASSE", True),
        ("İznik", "i\u0307znik", True),
        ("iznik", "IZNIK", True),
        ("snake", "my_snake", False),
        ("dog", "the dog’s bone", True),
        ("cat", "日本のcatです", True),
        ("cat", "日本のcats", False),
        ("한국", "한국어", False),
        ("ὀδυσσεύς", "ὈΔΥΣΣΕΎΣ", True),
        ("café", "a cafe\u0301", True),
        ("cafe", "a cafe\u0301", False),
        ("猫", "日本の猫です", True),
        ("it's", "IT'S here", True),
        ("(x", "f(x)", False),
    ],
)
def test_words_by_example(word: str, text: str, expected: bool) -> None:
    assert answers(Words(any=[word]), [text, "other", None]) == [expected, False, False]
    assert answers(Words(all=[word]), [text, "other", None]) == [expected, False, False]
    assert answers(Words(none=[word]), [text, "other", None]) == [not expected, True, True]


def test_any_number_of_words_can_be_asked_for() -> None:
    words = Words(any=[f"word{n}" for n in range(10_000)])
    assert answers(words, ["a word7", "a Word9999", "a word10000", "a word"]) == [True, True, False, False]


def test_the_patterns_of_many_or_long_words_stay_small() -> None:
    for words in ([f"word{number}" for number in range(2_000)], ["é" * 500 + str(number) for number in range(20)]):
        patterns = re.findall(r"regexp_matches\(t, '(.*?)'\)", words_predicate(Words(any=words), "t") or "")
        assert len(patterns) > 1 and max(map(len, patterns)) < 20_000
    assert len(re.findall("regexp_matches", words_predicate(Words(any=["cat", "dog"]), "t") or "")) == 1


def test_a_blank_word_is_refused() -> None:
    with pytest.raises(ValidationError, match="blank"):
        Words(any=["cat", " "])


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (Words(regex=["^a photo of"]), "A Photo of a cat", True),
        (Words(regex=["^a photo of"]), "not a photo of a cat", False),
        (Words(regex=[r"\d{4}", "it's"]), "it's 1999", True),
        (Words(regex=[r"\d{4}", "it's"]), "1999", False),
        (Words(regex=["(?-i)CAT"]), "a cat", False),
        (Words(not_regex=["cat|dog"]), "concatenate", False),
        (Words(not_regex=["cat|dog"], any=["bird"]), "a bird", True),
    ],
)
def test_patterns_are_taken_as_such_where_they_are_asked_for(words: Words, text: str, expected: bool) -> None:
    assert answers(words, [text]) == [expected]
