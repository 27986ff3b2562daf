"""Captions in file names, as EveryDream has them: "a cat on a sofa_(2).jpg" says "a cat on a sofa".

EveryDream reads a name's stem up to the first underscore; what follows only tells names apart. Not every caption fits
into a name: one that holds an underscore or a full stop, is too long, or has characters that a file system refuses
goes whole into a sidecar (dreamloom.caption.sidecar), and its name keeps what can be read of it.
"""

import os.path
import re
import unicodedata

MAX_BYTES = 255
"""The longest name that ext4, APFS and NTFS all hold, in bytes of UTF-8 (NTFS and APFS count 255 wider units)."""

_SUFFIX_BYTES = 14
"""Room for "_(99999999999)" where a name is cut."""

# Windows' reserved characters, and the underscore and the full stop, which mean something else: where the caption ends,
# and, to webdataset, where the image's key ends
_REFUSED = re.compile(r'[<>:"/\\|?*_.]')

_CONTROL = ("Cc", "Cs", "Cn", "Zl", "Zp")
"""Unicode's categories of characters that some system refuses (APFS takes no unassigned ones) or that break lines."""

_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"
}
"""Names that Windows keeps for itself, whatever the extension."""

CONTROLS = frozenset(
    [f"{name}.txt" for name in ("multiply", "flip_p", "cond_dropout", "loss_scale", "batch_id", "shuffle_tags")]
    + [f"{name}{suffix}" for name in ("local", "global") for suffix in (".yaml", ".yml")]
)
"""EveryDream's own files among the images, which say how a folder is shown."""

RESERVED = _DEVICES | {name.rpartition(".")[0] for name in CONTROLS}
"""Stems that no image may have: those, and EveryDream's own, which would be sidecars."""


def read_name(name: str) -> str:
    """The caption that an image's file name holds: its stem up to the first underscore, in Unicode's NFC.

    As EveryDream does, but for NFC: macOS may hand over "é" as "e" and an accent, which a tokenizer reads otherwise.
    """
    stem = os.path.splitext(os.path.basename(name))[0]
    return unicodedata.normalize("NFC", stem.split("_", 1)[0])


class NameWriter:
    """Gives the images of one folder names that hold their captions, each name once.

    No two of its names have the same stem on any system, also not where upper and lower case are the same: images of
    one stem would share a sidecar, and be one sample to webdataset.
    """

    def __init__(self) -> None:
        self._used: dict[str, int] = {}  # stem without suffix, case folded → how many have it

    def name(self, caption: str, extension: str) -> tuple[str, bool]:
        """A name that is still free, and whether the caption needs a sidecar because the name does not hold it.

        Args:
            extension: with its full stop: ".jpg".
        """
        room = MAX_BYTES - len(extension.encode("utf-8"))
        name = self._free(_readable(caption), room) + extension
        return name, read_name(name) != caption

    def _free(self, stem: str, room: int) -> str:
        folded = unicodedata.normalize("NFC", stem.casefold())
        count = self._used.get(folded, 0) + 1
        bare = count == 1 and stem and folded not in RESERVED
        full = stem if bare else f"{stem}_({count})"
        if len(full.encode("utf-8")) > room:
            return self._free(cut(stem, room - _SUFFIX_BYTES), room)
        self._used[folded] = count
        return full


def _readable(caption: str) -> str:
    """The caption itself where a name can hold it, else what is left when all that it can't hold is taken out."""
    text = unicodedata.normalize("NFC", caption)
    kept = "".join(" " if unicodedata.category(c) in _CONTROL else c for c in text)
    kept = _REFUSED.sub(" ", kept)
    if kept != text:
        kept = " ".join(kept.split())
    return kept.lstrip(" -").rstrip()


def cut(stem: str, room: int) -> str:
    """A stem of at most `room` bytes of UTF-8, without a blank at its end."""
    return stem.encode("utf-8")[:room].decode("utf-8", "ignore").rstrip()
