"""Writes captions as sidecars, so that `dreamloom.caption.sidecar` reads them unchanged."""

from pathlib import Path

import yaml

from dreamloom.base.files.atomic import commit


def write_sidecar(image: Path, text: str) -> Path:
    """Writes an image's caption into the .txt beside it.

    Returns:
        The .txt; an existing one is replaced.
    """
    path = image.with_suffix(".txt")
    with commit(path, sync=False) as temporary:
        temporary.write_bytes(encode_text(text))
    return path


def encode_text(text: str) -> bytes:
    """Encodes a caption for a .txt or .caption; inverts `dreamloom.base.tables.documents.decode_text`."""
    # readers remove one line end at the end and a mark at the beginning, and take zeros for UTF-16
    ended = text + "\n" if text.endswith("\n") else text
    return ended.encode("utf-8-sig" if text.startswith("\ufeff") or "\0" in text else "utf-8", "replace")


def encode_yaml(text: str) -> bytes:
    """Encodes a caption as EveryDream 2's image YAML; all of it is the main prompt."""
    legible = "\x85" not in text  # a Unicode line break, which PyYAML escapes only if told to
    prompt = text.encode("utf-8", "replace").decode()
    return yaml.safe_dump({"main_prompt": prompt}, allow_unicode=legible, width=2**31).encode()
