"""Words to look for in captions, as whole words and phrases, and the SQL that finds them.

A word is found where its characters are in the text and neither neighbour is a letter, a digit, a mark or an
underscore. So "person" is not in "personal"; "C++" is in "C++, C#" and not in "C++11". Case is ignored, by Unicode's
simple case folding as in every regular expression, and "STRASSE" is also found for "straße". A space in a phrase
matches any run of spaces. Chinese, Japanese, Thai and their like put nothing between words: there a word is found
wherever its characters are, and words of other scripts end where theirs begin.
Only `regex` and `not_regex` are regular expressions; all other words are literal.
"""

import re
import unicodedata

from pydantic import Field, field_validator

from dreamloom.base.stage import StageConfig

_UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff𠀀-\U0003ffff]"
UNSPACED = re.compile(_UNSPACED)
"""Characters of scripts that are written without spaces: Thai, Lao, Burmese, Khmer, Kana, Han."""
_EDGE = rf"[^\pL\pN\pM_]|{_UNSPACED}"
_SPACES = r"[\s\pZ]+"
_PATTERN_LETTERS = 8_000
"""Most letters of a pattern, in all spellings. At 14,000 RE2's memory is too small for its automaton, and it takes ten
times as long; at 140,000 it refuses the pattern."""


class Words(StageConfig):
    """Words and phrases that a caption must or must not contain: whole words, literal, in any case."""

    any: list[str] = Field([], description="The caption contains at least one of these words or phrases.")
    all: list[str] = Field([], description="The caption contains all of these words or phrases.")
    none: list[str] = Field([], description="The caption contains none of these words or phrases.")

    regex: list[str] = Field(
        [], description="The caption matches all of these regular expressions (RE2 syntax), in any case."
    )
    not_regex: list[str] = Field(
        [], description="The caption matches none of these regular expressions (RE2 syntax), in any case."
    )

    @field_validator("any", "all", "none", "regex", "not_regex")
    @classmethod
    def _not_blank(cls, words: list[str]) -> list[str]:
        if any(not word.split() for word in words):
            raise ValueError("a word is blank; write the word to look for, or leave it out")
        return words


def words_predicate(words: Words, text: str) -> str | None:
    """Returns SQL that is true where a text passes; None: there is nothing to check. A null text contains no word.

    Args:
        words: what the text must and must not contain.
        text: the SQL of the text.
    """
    conditions = [_contains_any(text, [word]) for word in words.all]
    if words.any:
        conditions.append(_contains_any(text, words.any))
    if words.none:
        conditions.append(f"NOT {_contains_any(text, words.none)}")
    conditions += [_matches(text, pattern) for pattern in words.regex]
    conditions += [f"NOT {_matches(text, pattern)}" for pattern in words.not_regex]
    return " AND ".join(conditions) or None


def _contains_any(text: str, words: list[str]) -> str:
    return "(" + " OR ".join(_matches(text, _pattern(group)) for group in _groups(words)) + ")"


def _groups(words: list[str]) -> list[list[str]]:
    """Divides words among patterns: a list of any length takes as much longer as it has more letters."""
    groups: list[list[str]] = [[]]
    letters = 0
    for word in words:
        of_word = sum(map(len, set(_spellings(word))))
        if groups[-1] and letters + of_word > _PATTERN_LETTERS:
            groups.append([])
            letters = 0
        groups[-1].append(word)
        letters += of_word
    return groups


def _matches(text: str, pattern: str) -> str:
    quoted = pattern.replace("'", "''")
    return f"coalesce(regexp_matches({text}, '(?i){quoted}'), false)"


def _pattern(words: list[str]) -> str:
    """Returns an RE2 pattern that finds any of these words. Words with the same edges share them, as they are long."""
    by_edges: dict[tuple[str, str], dict[str, None]] = {}
    for word in words:
        for spelling in _spellings(word):
            tokens = spelling.split()
            before = "" if UNSPACED.match(tokens[0][0]) else f"(?:^|{_EDGE})"
            after = "" if UNSPACED.match(tokens[-1][-1]) else f"(?:{_EDGE}|$)"
            by_edges.setdefault((before, after), {})[_SPACES.join(map(re.escape, tokens))] = None
    return "|".join(f"{before}(?:{'|'.join(patterns)}){after}" for (before, after), patterns in by_edges.items())


def _spellings(word: str) -> list[str]:
    """Returns both Unicode forms (é may be one character or two), also in full case folding, which has ss for ß."""
    return [unicodedata.normalize(form, same) for form in ("NFC", "NFD") for same in (word, word.casefold())]
