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
    return followed(find_all_nouns(captions), at_least, most)


def find_all_nouns(captions: Sequence[str]) -> list[frozenset[str]]:
    """Returns the nouns of each caption; a plural whose singular is a noun of any caption is the singular."""
    found = [find_nouns(caption) for caption in captions]
    words = frozenset().union(*found)
    return [frozenset(_singular(noun, words) for noun in nouns) for nouns in found]


def followed(concepts: Sequence[Iterable[str]], at_least: int, most: int = MOST_SHARED) -> list[frozenset[str]]:
    """Keeps, of what each image shows, what at least so many images show and at most half of them."""
    counts = Counter(name for names in concepts for name in set(names))
    frequent = [name for name, count in counts.items() if at_least <= count <= len(concepts) / 2]
    kept = set(sorted(frequent, key=lambda name: (-counts[name], name))[:most])
    return [frozenset(kept.intersection(names)) for names in concepts]


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
