"""Words to look for in captions, as literal whole words and phrases, and the SQL that finds them.

A word stands in a text where its characters do, upper and lower case being the same (Unicode's simple case folding, as
in every regular expression), and neither neighbour is a letter, a digit, a mark or an underscore. So "person" is not in
"personal", "C++" is in "C++, C#" and not in "C++11". The blanks of a phrase stand for any run of blanks.
Chinese, Japanese, Thai and their like put nothing between words; there a word stands wherever its characters do.
Patterns are taken as such only where they are asked for: `regex` and `not_regex`.
"""

import re
import unicodedata

from pydantic import Field, field_validator

from base.stage import StageConfig

_EDGE = r"[^\pL\pN\pM_]"
_BLANKS = r"[\s\pZ]+"
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff𠀀-\U0003ffff]")
"""Characters of scripts that are written without spaces: Thai, Lao, Burmese, Khmer, Kana, Han."""


class Words(StageConfig):
    """Words and phrases that a caption must or must not hold: whole words, in any case, literally."""

    any: list[str] = Field([], description="At least one of these words or phrases stands in the caption.")
    all: list[str] = Field([], description="Every one of these words or phrases stands in the caption.")
    none: list[str] = Field([], description="None of these words or phrases stands in the caption.")

    regex: list[str] = Field(
        [], description="Each of these regular expressions (RE2's) is found in the caption, in any case."
    )
    not_regex: list[str] = Field([], description="None of these regular expressions (RE2's) is found in the caption.")

    @field_validator("any", "all", "none", "regex", "not_regex")
    @classmethod
    def _not_blank(cls, words: list[str]) -> list[str]:
        if any(not word.split() for word in words):
            raise ValueError("a word is blank; write the word to look for, or leave it out")
        return words


def words_condition(words: Words, text: str) -> str | None:
    """SQL that is true where a text passes; None where there is nothing to ask. A null text holds no word.

    Args:
        text: the SQL of the text.
    """
    parts = [_holds(text, [word]) for word in words.all]
    if words.any:
        parts.append(_holds(text, words.any))
    if words.none:
        parts.append(f"NOT {_holds(text, words.none)}")
    parts += [_found(text, pattern) for pattern in words.regex]
    parts += [f"NOT {_found(text, pattern)}" for pattern in words.not_regex]
    return " AND ".join(parts) or None


def _holds(text: str, words: list[str]) -> str:
    return _found(text, "|".join(dict.fromkeys(form for word in words for form in _forms(word))))


def _found(text: str, pattern: str) -> str:
    quoted = pattern.replace("'", "''")
    return f"coalesce(regexp_matches({text}, '(?i){quoted}'), false)"


def _forms(word: str) -> list[str]:
    """The word as a pattern of RE2, in both of Unicode's forms: é may be one character or two."""
    forms = []
    for normal in ("NFC", "NFD"):
        tokens = unicodedata.normalize(normal, word).split()
        before = "" if UNSPACED.match(tokens[0][0]) else f"(?:^|{_EDGE})"
        after = "" if UNSPACED.match(tokens[-1][-1]) else f"(?:{_EDGE}|$)"
        forms.append(before + _BLANKS.join(re.escape(token) for token in tokens) + after)
    return forms
