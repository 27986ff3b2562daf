"""Notes captions that nobody can have meant: names that cameras and programs give, empty ones, one for all images."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from dreamloom.base.files.given_names import is_given_name
from dreamloom.base.tables.tables import NULLS
from dreamloom.train.data.notes import Notes

_FEW = 5
"""Images of a folder from which on one caption for all of them is noted."""

_OF_PAGES = re.compile(
    r"https?://|%(?:20|2C|27|C3%)|&(?:amp|quot|nbsp|lt|gt|rsquo|#x?[0-9a-f]{2,6});"
    r"|</?(?:a|b|i|p|u|br|em|div|img|span|font|strong|h\d)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
"""What pages and addresses have in them, and captions that somebody wrote do not."""


def note_captions(captions: Iterable[tuple[str, str]], notes: Notes) -> None:
    """Notes camera names, empty captions, what programs and pages left in captions, and folders of one caption.

    Args:
        captions: name and caption of each image; several pairs, where it has several captions.
        notes: is told of them, with examples.
    """
    folders: dict[str, Counter[str]] = defaultdict(Counter)
    for name, caption in captions:
        text = caption.strip()
        folders[name.rpartition("/")[0]][text] += 1
        if not text:
            notes("images with an empty caption, which teach what has no name", name)
        elif is_given_name(text):
            notes(
                "captions that are names which cameras and programs give, and would be learned as words (write "
                "captions into .txt files beside the images, or rename them)",
                f"{name} ({text!r})",
            )
        elif text in NULLS or text == "undefined":
            notes(
                "captions that programs write where there is none, and would be learned as words", f"{name} ({text!r})"
            )
        elif _OF_PAGES.search(text):
            notes("captions with addresses, escapes or HTML in them (caption edit takes HTML out)", name)
        elif len(text.splitlines()) > 1:
            notes("captions of several lines, which count as one caption, not as several", name)
    for folder, counts in folders.items():
        if len(counts) == 1 and counts.total() >= _FEW:
            caption = next(iter(counts))
            notes("folders whose images all have one caption", f"{folder or 'the folder itself'} ({caption[:60]!r})")
