"""Captions in file names, as in EveryDream: the caption of "a cat on a sofa_(2).jpg" is "a cat on a sofa".

EveryDream reads a name's stem up to the first underscore; the rest only distinguishes names. Not every caption fits
into a name: one that contains an underscore or a full stop, is too long, or has characters that a file system refuses
goes into a sidecar (dreamloom.caption.sidecar), and its name keeps the legible part.
"""

import os.path
import re
import unicodedata
from collections.abc import Collection

MAX_BYTES = 255
"""Maximum length of a name on ext4, APFS and NTFS, in bytes of UTF-8 (NTFS and APFS count 255 wider units)."""

SUFFIX_BYTES = 14
"""Room for "_(99999999999)" in a name that is cut."""

# Windows' reserved characters; the underscore, which ends the caption; the full stop, which ends webdataset's key
_REFUSED = re.compile(r'[<>:"/\\|?*_.]')

_PRINTED = "".join(re.escape(char) for char in map(chr, range(33, 127)) if not _REFUSED.match(char) and char != "-")
PLAIN = rf"^[{_PRINTED}]([{_PRINTED} \-]*[{_PRINTED}\-])?$"
"""Regular expression, in RE2's syntax also, of captions that a name holds as they are, as far as they are ASCII."""

_LEADING = re.compile(r"^[\s-]+")
"""Blanks, also those that are wider or don't break; and what a command line would take for a flag."""

_CONTROL = ("Cc", "Cs", "Cn", "Zl", "Zp")
"""Unicode categories of characters that some system refuses (APFS: unassigned ones) or that break lines."""

_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"
}
"""Stems that Windows reserves, whatever the extension."""

CONTROLS = frozenset(
    [f"{name}.txt" for name in ("multiply", "flip_p", "cond_dropout", "loss_scale", "batch_id", "shuffle_tags")]
    + [f"{name}{suffix}" for name in ("local", "global") for suffix in (".yaml", ".yml")]
)
"""EveryDream's control files, which lie among the images and say how a folder is shown."""

RESERVED = _DEVICES | {name.rpartition(".")[0] for name in CONTROLS}
"""Stems that no image may have: Windows' own, and those whose sidecar would be a control file."""


def find_controls(names: Collection[str]) -> dict[str, list[str]]:
    """Finds EveryDream's control files among a folder's files, in any case, and with the .txt that Windows hides.

    Returns:
        A name of CONTROLS → the files of that name, first the one that EveryDream reads.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        folded = name.casefold()
        control = folded if folded in CONTROLS else folded.removesuffix(".txt")
        if control in CONTROLS:
            found.setdefault(control, []).append(name)
    return {control: sorted(each, key=lambda name: name != control) for control, each in found.items()}


def read_name(name: str) -> str:
    """Returns the caption in an image's file name: its stem up to the first underscore, in Unicode's NFC.

    As EveryDream does, except for NFC: macOS may return "é" as "e" and an accent, which a tokenizer reads differently.
    """
    stem = os.path.splitext(os.path.basename(name))[0]
    return unicodedata.normalize("NFC", stem.split("_", 1)[0])


class NameWriter:
    """Names the images of one folder by their captions.

    No two names have the same stem, even where case is ignored: such images would share a sidecar, and be one sample to
    webdataset.
    """

    def __init__(self) -> None:
        """Starts without names."""
        self._used: dict[str, int] = {}  # stem without suffix, case folded → how many have it

    def name(self, caption: str, extension: str) -> tuple[str, bool]:
        """Returns an unused name, and whether the caption needs a sidecar, as the name can't hold it.

        Args:
            caption: The image's caption.
            extension: With its full stop: ".jpg".
        """
        room = MAX_BYTES - len(extension.encode("utf-8"))
        stem, suffix = self._unused_stem(legible(caption), room)
        return f"{stem}{suffix}{extension}", stem != caption

    def _unused_stem(self, stem: str, room: int) -> tuple[str, str]:
        """Returns what `read_name` gives back, and what makes the name another's."""
        folded = fold_stem(stem)
        count = self._used.get(folded, 0) + 1
        bare = count == 1 and stem and folded not in RESERVED
        suffix = "" if bare else f"_({count})"
        if len(stem.encode("utf-8")) + len(suffix) > room:
            return self._unused_stem(cut(stem, room - SUFFIX_BYTES), room)
        self._used[folded] = count
        return stem, suffix


def fold_stem(stem: str) -> str:
    """Returns the stem without regard to case: two images of a folder may not share it."""
    return unicodedata.normalize("NFC", stem.casefold())


def legible(caption: str) -> str:
    """Returns the caption if a name can hold it, else what remains without the characters that it can't hold."""
    text = unicodedata.normalize("NFC", caption)
    is_plain = text.isprintable()  # most are: then no character is of these categories
    kept = text if is_plain else "".join(" " if unicodedata.category(c) in _CONTROL else c for c in text)
    kept = _REFUSED.sub(" ", kept)
    if kept != text:
        kept = " ".join(kept.split())
    return _LEADING.sub("", kept).rstrip()


def cut(stem: str, room: int) -> str:
    """Cuts a stem to at most `room` bytes of UTF-8, without a blank at its end."""
    return stem.encode("utf-8")[:room].decode("utf-8", "ignore").rstrip()
