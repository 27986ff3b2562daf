"""Words to look for in captions, as literal whole words and phrases, and the SQL that finds them.

A word stands in a text where its characters do, upper and lower case being the same (Unicode's simple case folding, as
in every regular expression; also "STRASSE" for "straße"), and neither neighbour is a letter, a digit, a mark or an
underscore. So "person" is not in "personal", "C++" is in "C++, C#" and not in "C++11". The blanks of a phrase stand for
any run of blanks. Chinese, Japanese, Thai and their like put nothing between words; there a word stands wherever its
characters do, and words of other scripts end where theirs begin.
Patterns are taken as such only where they are asked for: `regex` and `not_regex`.
"""

import re
import unicodedata

from pydantic import Field, field_validator

from dreamloom.base.stage import StageConfig

_UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff𠀀-\U0003ffff]"
UNSPACED = re.compile(_UNSPACED)
"""Characters of scripts that are written without spaces: Thai, Lao, Burmese, Khmer, Kana, Han."""
_EDGE = rf"[^\pL\pN\pM_]|{_UNSPACED}"
_BLANKS = r"[\s\pZ]+"
_AT_ONCE = 2_000
"""Words in one pattern: of ten times as many, RE2 says that they are too large."""


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


def words_predicate(words: Words, text: str) -> str | None:
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
    some = (words[start : start + _AT_ONCE] for start in range(0, len(words), _AT_ONCE))
    return "(" + " OR ".join(_found(text, _any_of(group)) for group in some) + ")"


def _found(text: str, pattern: str) -> str:
    quoted = pattern.replace("'", "''")
    return f"coalesce(regexp_matches({text}, '(?i){quoted}'), false)"


def _any_of(words: list[str]) -> str:
    """A pattern of RE2 that finds any of these words; what stands around them is said once for all, as it is long."""
    alike: dict[tuple[str, str], dict[str, None]] = {}
    for word in words:
        for spelling in _spellings(word):
            tokens = spelling.split()
            before = "" if UNSPACED.match(tokens[0][0]) else f"(?:^|{_EDGE})"
            after = "" if UNSPACED.match(tokens[-1][-1]) else f"(?:{_EDGE}|$)"
            alike.setdefault((before, after), {})[_BLANKS.join(map(re.escape, tokens))] = None
    return "|".join(f"{before}(?:{'|'.join(same)}){after}" for (before, after), same in alike.items())


def _spellings(word: str) -> list[str]:
    """In both of Unicode's forms, as é may be one character or two; also as full case folding has it, with ss for ß."""
    return [unicodedata.normalize(form, same) for form in ("NFC", "NFD") for same in (word, word.casefold())]
