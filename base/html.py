"""HTML for notebooks and reports. All text is escaped, as captions and names come from strangers."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL_SIDE = 128
"""Pixels of a thumbnail's longer side."""

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #ccc; --faint: #666; --good: #2a7f62;
  --bad: #b3423a; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #16181a; --line: #444; --faint: #999;
  --good: #5cc49b; --bad: #ee8b80; } }
body { font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif;
  max-width: 1100px; margin: 1.5em auto; padding: 0 1em; color: var(--ink); background: var(--paper);
  overflow-wrap: anywhere; }
h2 { margin-top: 2em; border-bottom: 1px solid var(--line); } img { max-width: 100%; height: auto; background: #fff; }
figure { margin: 1em 0; } figcaption, summary { font-size: 13px; color: var(--faint); } a { color: inherit; }
.scroll { overflow-x: auto; margin-bottom: 1em; } table { border-collapse: collapse; overflow-wrap: normal; }
th, td { text-align: left; padding: .2em .9em .2em 0; vertical-align: top; }
th { border-bottom: 1px solid var(--line); }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.verdict { font-size: 1.2em; } .good { color: var(--good); } .bad { color: var(--bad); }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(9em, 1fr)); gap: 1em; }
.images figure { margin: 0; } .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; }
"""
GENERATOR = '<meta name="generator" content="dreamloom">'
"""Stands in each page of ours, and tells it from other files."""
MARKS = {True: '<span class="good">✓</span>', False: '<span class="bad">✗</span>', None: "≈"}
"""Whether something is good → its mark, which is no color alone; None: not sure."""


def page(title: str, sections: Mapping[str, Sequence[str]]) -> str:
    """Renders a page; a section without content is left out.

    Args:
        title: of the page, as plain text.
        sections: heading → the HTML below it.
    """
    body = "".join(f"<h2>{name}</h2>{''.join(parts)}" for name, parts in sections.items() if any(parts))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"{GENERATOR}<title>{text(title)}</title><style>{_STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{text(title)}</h1>{body}</body></html>\n'


def text(value: object) -> str:
    """Escapes a value for use in elements and in quoted attributes."""
    return html.escape(str(value).encode("utf-8", "replace").decode())


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Renders rows with equal keys as a table, without empty columns; returns an empty text without rows."""
    names = [name for name in (rows[0] if rows else ()) if any(row[name] not in (None, "") for row in rows)]
    head = "".join(f"<th>{text(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_cell(row[name]) for name in names)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>' if rows else ""


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="number">{value:,.6g}</td>'
    return f"<td>{'' if value is None else text(value)}</td>"


def embedded(image: "Image.Image", alt: str) -> str:
    """Renders an image that is part of the page itself, as JPEG."""
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=90)
    return f'<img alt="{text(alt)}" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'


def embedded_file(source: Path | bytes, alt: str, side: int | None = None) -> str:
    """Renders an image file that is part of the page itself; one that can't be decoded as the reason.

    Args:
        source: the file, or its bytes.
        alt: what it shows.
        side: the longest side, to which it is scaled down; None: as it is.
    """
    from dreamloom.base.images.pixels import ImageError, decode  # Pillow from here on

    try:
        image = decode(source, at_least=side)
    except ImageError as error:
        return text(error.reason)
    if side is not None:
        image.thumbnail((side, side))
    return embedded(image, alt)


def thumbnails(images: Sequence[tuple[Path | bytes, str]], side: int = THUMBNAIL_SIDE) -> str:
    """Renders images with their captions, embedded as JPEG. A file that can't be decoded shows the reason instead."""
    figures = "".join(_figure(source, caption, side) for source, caption in images)
    return f'<div style="display: flex; flex-wrap: wrap; gap: 8px">{figures}</div>' if images else ""


def _figure(source: Path | bytes, caption: str, side: int) -> str:
    shown = embedded_file(source, "", side)
    words = f'<figcaption style="font-size: 11px">{text(caption)}</figcaption>'
    return f'<figure style="margin: 0; width: {side}px">{shown}{words}</figure>'
