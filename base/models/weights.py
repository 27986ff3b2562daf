"""Tells by their first bytes what files of weights are, where they are none: pointers, web pages, cut off files.

A stranger may have written them, so nothing is read that the file can't hold, and nothing is believed.
"""

import codecs
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError

MAX_HEADER_BYTES = 16 * 2**20
"""Maximum size of a safetensors file's header. Stable Diffusion's is 0.2 MB; safetensors itself allows 100 MB."""
WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth")
_FIRST = 512
"""Bytes by which a file is judged."""
_AGAIN = "copy it again"
_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS", "run `git lfs pull` where it comes from, and copy it again"),
    (b"# xet version", "a pointer of Xet", "fetch the file itself"),
    (b"/annex/objects/", "a pointer of git-annex", "run `git annex get` where it comes from, and copy it again"),
    (b"\x1f\x8b", "packed with gzip", "unpack it"),
    (b"\xfd7zXZ", "packed with xz", "unpack it"),
    (b"(\xb5/\xfd", "packed with Zstandard", "unpack it"),
    (b"7z\xbc\xaf", "an archive of 7-Zip", "unpack it"),
    (b"Rar!", "an archive of RAR", "unpack it"),
    (b"GGUF", "of llama.cpp (GGUF)", "name the model that it was made from"),
    (b"\xff\xd8\xff", "a picture", _AGAIN),
    (b"\x89PNG", "a picture", _AGAIN),
)
"""First bytes → what a file is, and how to mend it."""


def check_weights(files: Iterable[Path]) -> None:
    """Checks that files are of weights, by their headers; files of other names than WEIGHT_SUFFIXES are passed over.

    Raises:
        UserError: one is a pointer, a web page, a text, an archive, empty or cut off.
    """
    for file in files:
        match file.suffix.lower():
            case ".safetensors":
                read_safetensors_header(file)
            case suffix if suffix in WEIGHT_SUFFIXES and (why := _why_no_weights(file, is_safetensors=False)):
                raise UserError(f"{file} holds no weights: it is {why[0]}; {why[1]}.")


def read_safetensors_header(file: Path) -> dict[str, Any]:
    """Reads the header of a safetensors file: what its tensors are called, their shapes and places, and its metadata.

    Raises:
        UserError: it is no safetensors file, or not all of it is there.
    """
    if why := _why_no_weights(file, is_safetensors=True):
        raise UserError(f"{file} is not a safetensors file: it is {why[0]}; {why[1]}.")
    try:
        with file.open("rb") as stream:
            size, length = int.from_bytes(stream.read(8), "little"), file.stat().st_size
            if size > min(MAX_HEADER_BYTES, length - 8):
                raise ValueError("its header is longer than the file or 16 MB")
            header = json.loads(stream.read(size))
        if not isinstance(header, dict):
            raise ValueError("its header is not an object")
        ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
        if not all(type(end) is int for end in ends):
            raise ValueError("a tensor has no place")
        if (whole := 8 + size + max(ends, default=0)) > length:
            raise ValueError(f"it is cut off: {length:,} of {whole:,} bytes are there")
    except RecursionError:
        raise UserError(f"{file} is not a safetensors file (its header is nested); {_AGAIN}.") from None
    except (LookupError, TypeError):
        raise UserError(f"{file} is not a safetensors file (a tensor has no place); {_AGAIN}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a safetensors file ({error}); {_AGAIN}.") from error
    return header


def _why_no_weights(file: Path, is_safetensors: bool) -> tuple[str, str] | None:
    """Returns what a file is in place of weights, and how to mend it; None where its first bytes say nothing."""
    try:
        with file.open("rb") as stream:
            first = stream.read(_FIRST)
        if not first.strip(b"\0"):
            return "empty", _AGAIN
        for beginning, what, mend in _BEGINNINGS:
            if first.startswith(beginning):
                return what, mend
        if first.lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:6].lower() in (b"<!doct", b"<html>", b"<html ", b"<?xml "):
            return "a web page (of a login or a licence, say)", "download it again"
        if first.startswith(b"PK\3\4"):
            if is_safetensors:
                return "a zip", "unpack it, or call it .ckpt if torch wrote it"
            return None if zipfile.is_zipfile(file) else ("cut off", _AGAIN)
        if is_safetensors and first.startswith(b"\x80") and 2 <= first[1] <= 5:
            return "a pickle", "call it .ckpt if torch wrote it"
    except OSError as error:
        raise UserError(
            f"{file} can't be read ({error.strerror}); change its permissions, or copy it again."
        ) from error
    return ("a text", _AGAIN) if _is_text(first) else None


def _is_text(first: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(first)  # its last letter may be cut
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n" for letter in text)
