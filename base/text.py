"""Text that may come from anywhere, made fit for a terminal, a log, a table and a sentence."""

import re
import unicodedata
from collections.abc import Sequence

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, line breaks, and changes of the direction of writing."""


def printable(text: str) -> str:
    r"""Returns the text with what a terminal would obey as escapes: "\x1b[31m", "\n"; see also `without_surrogates`."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], without_surrogates(text))


_BLANK_KINDS = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""Unicode's categories of what has no shape: blanks, line ends, controls, marks of direction, joiners."""
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}
"""Characters of other categories that have none: fillers of Hangul, the empty Braille pattern, variation selectors."""


def shows_nothing(text: str) -> bool:
    """Tells whether a text is blank: blanks, characters without width, and the zeros that a power cut leaves."""
    return all(unicodedata.category(each) in _BLANK_KINDS or each in _BLANKS for each in text)


_SURROGATES = {code: chr(code - 0xDC00) if 0xDC80 <= code <= 0xDCFF else "\ufffd" for code in range(0xD800, 0xE000)}


def is_utf8(text: str) -> bool:
    """Tells whether UTF-8 can hold the text, so that any file, table and tokenizer can."""
    return text.isascii() or text == without_surrogates(text)


def without_surrogates(text: str) -> str:
    """Returns text that UTF-8 can hold.

    Bytes of a file name that is not UTF-8, which Python keeps as surrogates, are read as Latin-1; others become U+FFFD.
    """
    return text if text.isascii() else text.translate(_SURROGATES)


def brief(text: object, most: int = 200) -> str:
    """Returns what a value says, such as an error of a library: on one line, cut to at most so many characters."""
    return " ".join(str(text).split())[:most]


def name_some(names: Sequence[str], most: int = 3) -> str:
    """Lists the first few names in a line, and counts the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def indefinite_article(name: str) -> str:
    """Returns what precedes a name: "a ", "an ", or nothing before a plural ("sunglasses")."""
    if re.search(r"[^sui]s\b(?! )", name.partition(" (")[0].partition(",")[0]):
        return ""
    return "an " if re.match(r"(?i)[aeio](?!ne\b|uro)|u(?!ni)|hour", name) else "a "
