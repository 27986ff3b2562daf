"""Editing captions as a set: the same rules for each, so that a folder speaks of its subject in one way.

A rule looks for whole words and phrases, upper and lower case being the same (Unicode's simple case folding), and é
being the same whether it is one character or two. "a man" does not stand in "a mannequin": where a word begins or ends
with a letter, a digit, a mark or an underscore, its neighbour there is none of these. A blank stands for any run of
blanks. Scripts that are written without spaces have no such neighbours. What is not changed stays as it was, to the
character.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import regex

from dreamloom.caption.config import PLACEHOLDER, EditConfig
from dreamloom.scrape.index.words import UNSPACED


def edit(caption: str, config: EditConfig, source: str) -> str:
    """A caption after the rules.

    To do it twice is to do it once, unless one rule undoes what another does, such as a prefix that is a beginning to
    strip, or a replacement that holds what is looked for. A template is put around the caption each time.

    Args:
        source: the name of the source or folder. In a template its underscores are spaces, and kohya's count of
            repeats (the 10 of "10_john_doe") is left out.
    """
    text = _strip(caption, config.strip) if config.strip else caption
    if config.replace:
        text = _replace(text, config.replace)
    if config.template:
        known = {"caption": text, "source": regex.sub(r"^\d+_(?=.)", "", source).replace("_", " ")}
        text = PLACEHOLDER.sub(lambda place: known[place[1]], config.template)
    text = _suffixed(_prefixed(text, config.prefix), config.suffix)
    if config.deduplicate:
        text = _deduplicated(text)
    return _ordered(text, config.tag_order) if config.tag_order else text


# The rules


def _strip(text: str, beginnings: Sequence[str]) -> str:
    """More than one may stand before another: "an image of a painting of a cat"."""
    pattern = _compiled(tuple(beginnings), r"[\s,:;]*", r"[\s,:;]*")
    while (found := pattern.match(text)) and found.end():
        text = text[found.end() :]
    return text


def _replace(text: str, words: dict[str, str]) -> str:
    longest_first = tuple(sorted(words, key=lambda word: (-len(word), word)))
    instead = [words[word] for word in longest_first]
    edited = _compiled(longest_first).sub(lambda found: instead[found.lastindex - 1], text)
    return _tidied(edited) if edited != text and "" in instead else edited


def _tidied(text: str) -> str:
    """Without what is left around words that were taken out: blanks that stand double, commas with nothing between."""
    phrases = [" ".join(phrase.split()) for phrase in text.split(",")]
    return ", ".join(phrase for phrase in phrases if phrase)


def _prefixed(text: str, prefix: str) -> str:
    prefix = prefix.strip()
    if not prefix or _compiled((prefix,), before=r"\s*").match(text):
        return text
    return f"{prefix} {text.lstrip()}" if text.strip() else prefix


def _suffixed(text: str, suffix: str) -> str:
    suffix = suffix.strip()
    if not suffix or _compiled((suffix,), after=r"\s*\Z").search(text):
        return text
    if not text.strip():
        return suffix
    between = "" if unicodedata.category(suffix[0]) in ("Po", "Pe", "Pf") else " "  # , . ; ! and what closes
    return f"{text.rstrip()}{between}{suffix}"


def _deduplicated(text: str) -> str:
    phrases = text.split(",")
    once: dict[str, str] = {}
    for phrase in phrases:
        once.setdefault(_folded(phrase), phrase.strip())
    once.pop("", None)
    return text if len(once) == len(phrases) else ", ".join(once.values())


def _ordered(text: str, first: Sequence[str]) -> str:
    places = {_folded(phrase): place for place, phrase in enumerate(first)}
    phrases = text.split(",")
    ordered = sorted(phrases, key=lambda phrase: places.get(_folded(phrase), len(places)))
    return text if ordered == phrases else ", ".join(phrase.strip() for phrase in ordered)


# Helpers


def _folded(phrase: str) -> str:
    return unicodedata.normalize("NFC", " ".join(phrase.casefold().split()))


@lru_cache(maxsize=64)
def _compiled(words: tuple[str, ...], before: str = "", after: str = "") -> regex.Pattern[str]:
    """A pattern that finds one of the words; its group of that number, from 1, says which."""
    groups = "|".join(f"({'|'.join(dict.fromkeys(_forms(word)))})" for word in words)
    return regex.compile(f"{before}(?:{groups}){after}", regex.IGNORECASE)


def _forms(word: str) -> list[str]:
    """The word as a pattern, in both of Unicode's forms."""
    forms = []
    for normal in ("NFC", "NFD"):
        tokens = unicodedata.normalize(normal, word).split()
        before, after = (_edge(c) for c in (tokens[0][0], tokens[-1][-1]))
        blanks = r"\s+".join(regex.escape(token) for token in tokens)
        forms.append((before and f"(?<!{before})") + blanks + (after and f"(?!{after})"))
    return forms


def _edge(character: str) -> str:
    """What must not stand beside a word's first or last character."""
    in_words = unicodedata.category(character)[0] in "LNM" or character == "_"
    return r"[\p{L}\p{N}\p{M}_]" if in_words and not UNSPACED.match(character) else ""
