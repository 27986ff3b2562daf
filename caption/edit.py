"""Edits captions as a set: the same rules for each, so that a folder speaks of its subject in one way.

A rule looks for whole words and phrases, regardless of case (Unicode's simple case folding) and of whether é is one
character or two. "a man" is not in "a mannequin": where a word begins or ends with a letter, a digit, a mark or an
underscore, its neighbour there is none of these. A blank stands for any run of blanks. Scripts that are written without
spaces have no such neighbours. What no rule changes stays as it was, to the character.
"""

import html
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import regex

from dreamloom.base.text import indefinite_article
from dreamloom.caption.config import PLACEHOLDER, EditConfig
from dreamloom.scrape.collection import CaptionKind
from dreamloom.scrape.index.words import UNSPACED


def edit(caption: str, config: EditConfig, source: str, kind: CaptionKind = CaptionKind.HUMAN) -> str:
    """Applies the rules to a caption.

    Applying them again changes nothing, unless one rule undoes what another does, such as a prefix that is a beginning
    to strip, or a replacement that contains what is looked for. A template is put around the caption each time.

    Args:
        caption: The caption before.
        config: The rules.
        source: The name of the source or folder. In a template its underscores are spaces, and kohya's count of
            repeats (the 10 of "10_john_doe") is left out.
        kind: Where the caption came from; HTML is removed from alt texts.
    """
    has_html = config.remove_html == "all" or (config.remove_html == "web" and kind == CaptionKind.ALT)
    text = _remove_html(caption) if has_html else caption
    if config.remove_invented:
        text = _remove_invented(text)
    if config.max_repeats is not None:
        text = _collapse(text, config.max_repeats)
    text = _strip(text, config.strip) if config.strip else text
    if config.replace:
        text = _replace(text, config.replace)
    if config.template:
        values = {"caption": text, "source": regex.sub(r"^\d+_(?=.)", "", source).replace("_", " ")}
        text = PLACEHOLDER.sub(lambda name: values[name[1]], config.template)
    text = _add_suffix(_add_prefix(text, config.prefix), config.suffix)
    if config.deduplicate:
        text = _deduplicate(text)
    return _order(text, config.tag_order) if config.tag_order else text


# The rules


def _remove_html(text: str) -> str:
    """Removes tags and decodes entities, also where a page has encoded them twice (&amp;lt;b&amp;gt;)."""
    edited = _CUT_TAG.sub("", text)
    for _ in range(_ENCODED):
        edited = _ENTITY.sub(lambda entity: html.unescape(entity[0]).translate(_INVISIBLE), edited)
        edited = _TAG.sub(lambda tag: "" if tag["unseen"] else " ", edited)
    return text if edited == text else str(regex.sub(r" (?=[,.;:!?])", "", " ".join(edited.split())))


_ENCODED = 3
_ATTRIBUTES = r"""(?:[^<>='"]|=\s*+(?:"[^"<]*+"|'[^'<]*+')|['"=])*+"""
"""Of a tag; quoted values may hold “>”. Possessive, so that the time is linear, as all patterns here."""
_TAG = regex.compile(
    rf"""
      (?P<unseen> <!--(?:[^<-]|-(?!->)|<(?!!--))*+--> | </?(?:sub|sup|wbr)\b{_ATTRIBUTES}> | <!\[CDATA\[ | \]\]> )
    | <(?P<code>script|style)\b{_ATTRIBUTES}>[^<]*+</(?P=code)\s*+>
    | <[/!?]?[a-zA-Z]{_ATTRIBUTES}> | <![^<>]*+>
    """,
    regex.IGNORECASE | regex.VERBOSE,
)
_CUT_TAG = regex.compile(r"<(?:/[a-zA-Z]\w*+|[a-zA-Z]\w*+\s+[\w:-]++\s*+=[^<>]*+)\s*+\Z")
"""The beginning of a tag at the end, where a page or a table cut the text."""
_ENTITY = regex.compile(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[a-zA-Z][a-zA-Z\d]{1,31});")
"""With its semicolon: in “rock&region” a browser would read &reg."""
_INVISIBLE = dict.fromkeys(map(ord, "\0\u00ad\u200b\u200e\u200f\u2060\ufeff\ufffd"))
"""Soft hyphens and the like, which pages write as entities."""


_INVENTED = regex.compile(
    r"(?:\b(?P<article>an?)\s+)?(?:(?<![\w-])araf(?:[efily]\w{0,5})?(?![\w-])[\s,]*)+(?=(?P<following>\w*))",
    regex.IGNORECASE,
)
"""BLIP large begins captions of people and animals with arafed, araffe, araffes, arafly, …, words of no language."""
_DANGLING = regex.compile(r"(?:(?:^|[\s,]+)(?:and|of|with|in|on|at|by|the|an?))*[\s,]*\Z", regex.IGNORECASE)


def _remove_invented(text: str) -> str:
    edited = _INVENTED.sub(_without_invented, text)
    return edited if edited == text or edited == edited.rstrip() else str(_DANGLING.sub("", edited, count=1))


def _without_invented(match: "regex.Match[str]") -> str:
    """Returns the article that fits what follows the word."""
    article, following = match["article"], str(match["following"])
    if not article or not following:
        return ""
    return f"{article[0]}{indefinite_article(following)[1:] or ' '}"


def _collapse(text: str, most: int) -> str:
    """Shortens runs of an equal word, phrase or sentence of up to _PHRASE words; marks between them go with them."""
    return str(_REPEATED.sub(lambda run: _shorten(run, most), text))


_PHRASE = 12
_REPEATED = regex.compile(
    rf"(?<![\w'-])(?P<phrase>\w[\w'-]*(?:,?\s+\w[\w'-]*){{0,{_PHRASE - 1}}}?)"
    r"(?P<more>[,.;]?\s+(?P=phrase)(?![\w'-]))+",
    regex.IGNORECASE,
)


def _shorten(run: "regex.Match[str]", most: int) -> str:
    return str(run["phrase"]) + "".join(run.captures("more")[: most - 1])


def _strip(text: str, beginnings: Sequence[str]) -> str:
    """Strips repeatedly, as several may follow one another: "an image of a painting of a cat"."""
    pattern = _compile(tuple(beginnings), r"[\s,:;]*", r"[\s,:;]*")
    while (match := pattern.match(text)) and match.end():
        text = text[match.end() :]
    return text


def _replace(text: str, words: dict[str, str]) -> str:
    longest_first = tuple(sorted(words, key=lambda word: (-len(word), word)))
    replacements = [words[word] for word in longest_first]
    edited = _compile(longest_first).sub(lambda match: replacements[match.lastindex - 1], text)
    return _tidy(edited) if edited != text and "" in replacements else edited


def _tidy(text: str) -> str:
    """Removes what is left around removed words: double blanks, and commas with nothing between them."""
    phrases = [" ".join(phrase.split()) for phrase in text.split(",")]
    return ", ".join(phrase for phrase in phrases if phrase)


def _add_prefix(text: str, prefix: str) -> str:
    prefix = prefix.strip()
    if not prefix or _compile((prefix,), before=r"\s*").match(text):
        return text
    return f"{prefix} {text.lstrip()}" if text.strip() else prefix


def _add_suffix(text: str, suffix: str) -> str:
    suffix = suffix.strip()
    if not suffix or _compile((suffix,), after=r"\s*\Z").search(text):
        return text
    if not text.strip():
        return suffix
    between = "" if unicodedata.category(suffix[0]) in ("Po", "Pe", "Pf") else " "  # , . ; ! and what closes
    return f"{text.rstrip()}{between}{suffix}"


def _deduplicate(text: str) -> str:
    phrases = text.split(",")
    unique: dict[str, str] = {}
    for phrase in phrases:
        unique.setdefault(_fold(phrase), phrase.strip())
    unique.pop("", None)
    return text if len(unique) == len(phrases) else ", ".join(unique.values())


def _order(text: str, first: Sequence[str]) -> str:
    places = {_fold(phrase): place for place, phrase in enumerate(first)}
    phrases = text.split(",")
    ordered = sorted(phrases, key=lambda phrase: places.get(_fold(phrase), len(places)))
    return text if ordered == phrases else ", ".join(phrase.strip() for phrase in ordered)


# Helpers


def _fold(phrase: str) -> str:
    return unicodedata.normalize("NFC", " ".join(phrase.casefold().split()))


@lru_cache(maxsize=64)
def _compile(words: tuple[str, ...], before: str = "", after: str = "") -> regex.Pattern[str]:
    """Returns a pattern that finds one of the words; the number of its group, from 1, says which."""
    groups = "|".join(f"({'|'.join(dict.fromkeys(_forms(word)))})" for word in words)
    return regex.compile(f"{before}(?:{groups}){after}", regex.IGNORECASE)


def _forms(word: str) -> list[str]:
    """Returns patterns of a word, in both of Unicode's normal forms."""
    forms = []
    for normal in ("NFC", "NFD"):
        tokens = unicodedata.normalize(normal, word).split()
        before, after = (_edge(c) for c in (tokens[0][0], tokens[-1][-1]))
        blanks = r"\s+".join(regex.escape(token) for token in tokens)
        forms.append((before and f"(?<!{before})") + blanks + (after and f"(?!{after})"))
    return forms


def _edge(character: str) -> str:
    """Returns what must not stand beside a word's first or last character."""
    in_words = unicodedata.category(character)[0] in "LNM" or character == "_"
    return r"[\p{L}\p{N}\p{M}_]" if in_words and not UNSPACED.match(character) else ""
