"""Finds the nouns that captions share, by a plain rule without a language model.

A caption is cut at punctuation, at function words ("of", "with", "is", …), and at words in -ing. The last word of each
piece is taken for a noun: "a big red heart | on | a white background" has heart and background, "two | dogs | running |
in | the snow" has dogs and snow. A plural counts as its singular where captions have that, too. Of the nouns, those are
shared that enough captions have; one that more than half of the captions have says no more than the mean of all.

The rule is for English. It takes some words that are no nouns, which costs a row of a table and no more.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

MOST_SHARED = 64
"""Most nouns that are followed: with more, each has too few images, and too many intervals must hold at once."""

_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
    a an the this that these those some any each every another other both all many much more most several few no none
    i me my you your he him his she her hers it its we us our they them their who whom whose which what
    of in on at by to for from with without into onto over under above below behind before after beside between near
    next left right around across along against among through during inside outside off up down about like as than
    out toward towards upon within and or but nor so yet while where when if then is are was were be been being
    am has have had do does did can could will would shall should may might must not there here very too also
    just only one two three four five six seven eight nine ten
    """,
    )
)
_LETTERS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_PIECE = re.compile(r"[.,;:!?()\[\]{}|/\\\"“”«»\d\n]+")
_MIN_LETTERS = 3
_CAPTIONS_AT_ONCE = 20_000
"""Of so many the bytes are in memory, with eight bytes for each."""
_ASCII = [chr(code) for code in range(128)]
_IS_LETTER, _CUTS, _JOINS = (
    np.array([is_so(char) for char in _ASCII])
    for is_so in (str.isalpha, lambda char: _PIECE.match(char) is not None, lambda char: char in "'-")
)
"""What a character of ASCII is to _LETTERS and _PIECE."""


def find_nouns(caption: str) -> frozenset[str]:
    """Returns the words of a caption, in lower case, that stand where a noun stands."""
    nouns = set()
    for piece in _PIECE.split(caption.lower()):
        last = ""
        for word in [*_LETTERS.findall(piece), ""]:
            if not word or word in _FUNCTION_WORDS or _is_verb(word):
                nouns.add(last)
                last = ""
            else:
                last = re.sub(r"['’]s$", "", word)
    return frozenset(noun for noun in nouns if len(noun) >= _MIN_LETTERS)


def shared_nouns(captions: Sequence[str], at_least: int, most: int = MOST_SHARED) -> list[frozenset[str]]:
    """Returns, for each caption, those of its nouns that captions share.

    Args:
        captions: of all images.
        at_least: the fewest captions that share a noun.
        most: the number of nouns to take, the most frequent ones; of equal ones, the first by name.
    """
    rows, nouns, names = _find_pairs(captions)
    pairs = np.unique(rows * max(1, len(names)) + nouns)
    rows, nouns = np.divmod(pairs, max(1, len(names)))
    counts = np.bincount(nouns, minlength=len(names))
    frequent = np.flatnonzero((counts >= at_least) & (counts <= len(captions) / 2)).tolist()
    kept = sorted(frequent, key=lambda noun: (-counts[noun], names[noun]))[:most]
    shown: list[frozenset[str]] = [frozenset()] * len(captions)
    is_kept = np.isin(nouns, kept)
    same: dict[frozenset[str], frozenset[str]] = {}  # few are different, of many images
    rows, nouns = rows[is_kept], nouns[is_kept]
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    of_pairs = [names[noun] for noun in nouns.tolist()]
    ends = np.append(starts, len(rows))[1:]
    for row, start, end in zip(rows[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
        found = frozenset(of_pairs[start:end])
        shown[row] = same.setdefault(found, found)
    return shown


def find_all_nouns(captions: Sequence[str]) -> list[frozenset[str]]:
    """Returns the nouns of each caption; a plural whose singular is a noun of any caption is the singular."""
    rows, nouns, names = _find_pairs(captions)
    of_rows = [names[number] for number in nouns.tolist()]
    ends = np.searchsorted(rows, np.arange(len(captions)), "right").tolist()
    return [frozenset(of_rows[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _find_pairs(captions: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Returns numbers of captions, ascending; for each the number of a noun; and the nouns, by their numbers."""
    numbers: dict[str, int] = {}
    pairs = [
        _number_nouns(captions[first : first + _CAPTIONS_AT_ONCE], first, numbers)
        for first in range(0, len(captions), _CAPTIONS_AT_ONCE)
    ]
    rows, nouns = np.concatenate([np.empty((2, 0), dtype=np.int64), *pairs], axis=1)
    words = frozenset(numbers)
    names: dict[str, int] = {}
    number_of = [names.setdefault(_singular(noun, words), len(names)) for noun in numbers]
    return rows, np.array(number_of, dtype=np.int64)[nouns], list(names)


def _number_nouns(captions: Sequence[str], first: int, numbers: dict[str, int]) -> NDArray[np.int64]:
    """Finds the nouns of captions, of all that are ASCII at once.

    Args:
        captions: some captions.
        first: the number of the first.
        numbers: Noun → its number; receives new ones.

    Returns:
        Pairs [2, n] of a caption's number and a noun's, sorted by caption.
    """
    others = [(row, noun) for row, text in enumerate(captions) if not text.isascii() for noun in find_nouns(text)]
    rows, words, found = _find_in_ascii([text if text.isascii() else "" for text in captions])
    of_words = np.empty(len(words), dtype=np.int64)
    for place in np.unique(found).tolist():
        of_words[place] = numbers.setdefault(words[place], len(numbers))
    of_others = [(row, numbers.setdefault(noun, len(numbers))) for row, noun in others]
    pairs = np.concatenate([np.stack([rows, of_words[found]]), np.array(of_others, dtype=np.int64).reshape(-1, 2).T], 1)
    pairs = pairs[:, np.argsort(pairs[0], kind="stable")]
    pairs[0] += first
    return pairs


def _find_in_ascii(captions: Sequence[str]) -> tuple[NDArray[np.int64], list[str], NDArray[np.int64]]:
    """Finds what `find_nouns` does.

    Returns:
        Numbers of captions, ascending; words; and which of these is a noun of each of the captions.
    """
    import pyarrow as pa

    text = np.frombuffer("\n".join([*captions, ""]).lower().encode("ascii"), dtype=np.uint8)
    is_letter = _IS_LETTER[text]
    inside = is_letter.copy()
    inside[1:-1] |= _JOINS[text[1:-1]] & is_letter[:-2] & is_letter[2:]
    starts, ends = np.flatnonzero(np.diff(inside, prepend=False, append=False)).reshape(-1, 2).T
    offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int32)
    tokens = pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(text[inside].tobytes()))
    words = (coded := tokens.dictionary_encode()).dictionary.to_pylist()
    ends_piece = np.array([word in _FUNCTION_WORDS or _is_verb(word) for word in words], dtype=bool)
    nouns = [re.sub("'s$", "", word) for word in words]
    is_long = np.array([len(noun) >= _MIN_LETTERS for noun in nouns], dtype=bool)
    token = coded.indices.to_numpy()
    piece = np.cumsum(_CUTS[text])[starts]
    is_last = np.ones(len(token), dtype=bool)
    is_last[:-1] = ends_piece[token[1:]] | (piece[1:] != piece[:-1])
    is_noun = ~ends_piece[token] & is_last & is_long[token]
    row = np.searchsorted(np.cumsum([len(caption) + 1 for caption in captions]), starts[is_noun], "right")
    return row, nouns, token[is_noun].astype(np.int64)


def followed(concepts: Sequence[Iterable[str]], at_least: int, most: int = MOST_SHARED) -> list[frozenset[str]]:
    """Keeps, of what each image shows, what at least so many images show and at most half of them."""
    counts = Counter(chain.from_iterable(names if isinstance(names, frozenset) else set(names) for names in concepts))
    frequent = [name for name, count in counts.items() if at_least <= count <= len(concepts) / 2]
    kept = frozenset(sorted(frequent, key=lambda name: (-counts[name], name))[:most])
    same: dict[frozenset[str], frozenset[str]] = {}  # few are different, of many images
    return [same.setdefault(found, found) for found in map(kept.intersection, concepts)]


def mentions(phrase: str, caption: str) -> bool:
    """Tells whether a caption has a word or phrase, in any case, as whole words."""
    return re.search(rf"(?<!\w){re.escape(phrase.strip().lower())}(?!\w)", caption.lower()) is not None


def _is_verb(word: str) -> bool:
    """Whether a word is taken for a verb, such as sitting; "thing", "king" and "ring" are too short."""
    return word.endswith("ing") and len(word) > 5


def _singular(noun: str, words: frozenset[str]) -> str:
    """Returns the singular of a noun where it is among the words."""
    for ending, instead in (("s", ""), ("es", ""), ("ies", "y")):
        if noun.endswith(ending) and (singular := noun.removesuffix(ending) + instead) in words:
            return singular
    return noun
