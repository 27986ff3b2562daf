"""HTML for notebooks and reports. All text is escaped, as captions and names come from strangers."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

THUMBNAIL_SIDE = 128
"""Pixels of a thumbnail's longer side."""


def text(value: object) -> str:
    """Escapes a value for use in elements and in quoted attributes."""
    return html.escape(str(value).encode("utf-8", "replace").decode())


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Renders rows with equal keys as a table, without empty columns; returns an empty text without rows."""
    names = [name for name in (rows[0] if rows else ()) if any(row[name] not in (None, "") for row in rows)]
    head = "".join(f"<th>{text(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_cell(row[name]) for name in names)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>" if rows else ""


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="number">{value:,.6g}</td>'
    return f"<td>{'' if value is None else text(value)}</td>"


def thumbnails(images: Sequence[tuple[Path, str]], side: int = THUMBNAIL_SIDE) -> str:
    """Renders images with their captions, embedded as JPEG. A file that can't be decoded shows the reason instead."""
    figures = "".join(_figure(path, caption, side) for path, caption in images)
    return f'<div style="display: flex; flex-wrap: wrap; gap: 8px">{figures}</div>' if images else ""


def _figure(path: Path, caption: str, side: int) -> str:
    from dreamloom.base.pixels import ImageError, decode  # Pillow from here on

    try:
        image = decode(path, at_least=side)
        image.thumbnail((side, side))
        data = io.BytesIO()
        image.save(data, "JPEG", quality=85)
        shown = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'
    except ImageError as error:
        shown = text(error.reason)
    words = f'<figcaption style="font-size: 11px">{text(caption)}</figcaption>'
    return f'<figure style="margin: 0; width: {side}px">{shown}{words}</figure>'
