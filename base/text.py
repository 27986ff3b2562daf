"""Text that may come from anywhere, made fit for a terminal, a log and a table."""

import re

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks, changes of the direction of writing, and bytes of file names that are not UTF-8."""


def printable(text: str) -> str:
    r"""Returns the text with what a terminal would obey, or could not write, as escapes: "\x1b[31m", "\n"."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


_SURROGATES = {code: chr(code - 0xDC00) if 0xDC80 <= code <= 0xDCFF else "\ufffd" for code in range(0xD800, 0xE000)}


def is_utf8(text: str) -> bool:
    """Tells whether UTF-8 can hold the text, so that any file, table and tokenizer can."""
    return text.isascii() or text == without_surrogates(text)


def without_surrogates(text: str) -> str:
    """Returns text that UTF-8 can hold.

    Bytes of a file name that is not UTF-8, which Python keeps as surrogates, are read as Latin-1; others become U+FFFD.
    """
    return text if text.isascii() else text.translate(_SURROGATES)
