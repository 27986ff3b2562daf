"""Writes an index of the demo's site as LAION publishes them: parquet in the joined schema, with realistic faults.

Column types are those of laion2B-en-aesthetic. `hash` is a hash of URL and text as there, but not murmur's.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.files.atomic import commit_folder
from dreamloom.demo.gallery import exhibit
from dreamloom.demo.world import aesthetic, caption, random_scene

SCHEMA = pa.schema(
    [
        pa.field("URL", pa.string()),
        pa.field("TEXT", pa.string()),
        pa.field("WIDTH", pa.int32()),
        pa.field("HEIGHT", pa.int32()),
        pa.field("similarity", pa.float64()),
        pa.field("hash", pa.int64()),
        pa.field("punsafe", pa.float32()),
        pa.field("pwatermark", pa.float32()),
        pa.field("aesthetic", pa.float32()),
    ]
)

_WORLD = 2025
Row = dict[str, Any]


def write_index(folder: Path, site: str, count: int) -> None:
    """Writes `folder`/part-*.snappy.parquet, unless `folder` exists.

    Args:
        folder: the folder to make.
        site: the site's address without a final slash.
        count: number of exhibits in the index; repeated and hostile rows are added.
    """
    if folder.exists():
        return
    rows = pa.Table.from_pylist(list(_shuffled(index_rows(site, count))), schema=SCHEMA)
    half = (rows.num_rows + 1) // 2
    with commit_folder(folder) as temporary:
        for number in range(2):
            path = temporary / f"part-{number:05d}.snappy.parquet"
            pq.write_table(rows.slice(number * half, half), path, compression="snappy")


def index_rows(site: str, count: int) -> list[Row]:
    """Returns the rows of the exhibits in order, then repeated ones, then hostile ones."""
    rows = [_row(site, number) for number in range(count)]
    rng = np.random.default_rng([_WORLD, count])
    for number in rng.choice(count, size=count // 50, replace=False):
        copy = dict(rows[number])
        if rng.random() < 0.5:  # the same image at another address
            copy["URL"] += "?utm_source=newsletter"
        if rng.random() < 0.5:  # LAION has each (URL, text) once, but a URL many times
            copy["TEXT"] = f"{caption(exhibit(int(number)).scene)}."
        rows.append(_hashed(copy))
    return rows + [_hashed({**rows[0], **changes}) for changes in _hostile(site, count)]


def _row(site: str, number: int) -> Row:
    """The row of an exhibit, which is a function of its number."""
    rng = np.random.default_rng([_WORLD, number, 1])
    shown = exhibit(number)
    text, nearness = _alt_text(caption(shown.scene), number, rng)
    width, height = (shown.height, shown.width) if rng.random() < 0.1 else (shown.width, shown.height)
    unknown = rng.random(4) < (0.01, 0.05, 0.05, 0.03)
    return _hashed(
        {
            "URL": f"{site}{shown.path}",
            "TEXT": text,
            "WIDTH": None if unknown[0] else width,
            "HEIGHT": None if unknown[0] else height,
            "similarity": 6016.0 if rng.random() < 0.001 else float(np.clip(rng.normal(nearness, 0.03), 0.05, 0.6)),
            "punsafe": None if unknown[1] else _bad(rng, often=0.03, above=0.5),
            "pwatermark": None if unknown[2] else _bad(rng, often=0.06, above=0.8),
            "aesthetic": None if unknown[3] else float(rng.normal(aesthetic(shown.scene), 0.4)),
        }
    )


def _bad(rng: np.random.Generator, often: float, above: float) -> float:
    """A random probability that exceeds `above` in a share `often` of the rows, as in LAION-5B."""
    return float(rng.uniform(above, 1) if rng.random() < often else above * rng.beta(0.5, 6))


def _hashed(row: Row) -> Row:
    digest = hashlib.blake2b(f"{row['URL']}{row['TEXT']}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return {**row, "hash": int.from_bytes(digest, "little", signed=True)}


def _shuffled(rows: list[Row]) -> Iterator[Row]:
    return (rows[place] for place in np.random.default_rng(_WORLD).permutation(len(rows)))


# Alt text


def _alt_text(words: str, number: int, rng: np.random.Generator) -> tuple[str | None, float]:
    """Alt text as on web pages, and a CLIP similarity of image and text that fits it."""
    title = words.title()
    kinds: list[tuple[float, str | None, float]] = [
        (0.66, words, 0.33),
        (0.09, f"Buy {title} &amp; Free Shipping | Shape Store", 0.29),
        (0.05, f"{title} Stock Vector - Royalty Free Illustration {10**7 + number}", 0.29),
        (0.04, words.upper(), 0.30),
        (0.03, f"&quot;{words}&quot;  \n", 0.31),
        (0.03, f"IMG_{number:04d}.JPG", 0.19),
        (0.03, f"{words.replace(' ', '-')}-300x300", 0.25),
        (0.02, f"✨{words}✨ #shapes #art", 0.29),
        (0.02, "ein rotes Herz auf weißem Grund", 0.20),
        (0.01, "赤い丸、白い背景", 0.20),
        (0.01, None, 0.20),
        (0.01, caption(random_scene(rng)), 0.20),  # the caption of another image
    ]
    _, text, nearness = kinds[rng.choice(len(kinds), p=[share for share, _, _ in kinds])]
    return text, nearness


# Rows that no scraper should trust


def _hostile(site: str, count: int) -> Iterator[Row]:
    """Yields the changes that make a row hostile. Good addresses are of exhibits that no other row has."""
    text = caption(exhibit(0).scene)
    for url in (
        None,
        "",
        "not a url",
        "http://",
        "file:///etc/passwd",
        "ftp://127.0.0.1/picture.jpg",
        "data:image/gif;base64,R0lGODlhAQABAAAAACw=",
        "http://127.0.0.1:1/latest/meta-data/picture.jpg",
        "http://[::ffff:127.0.0.1]:1/picture.jpg",
        f"{site}/pictures/{'a' * 5000}.jpg",
    ):
        yield {"URL": url, "TEXT": text}
    good = (shown for shown in map(exhibit, range(count, 10**6)) if shown.fault is None and shown.repeats is None)
    slugs = ("großes-herz-", "two words-", "%E8%B5%A4-", "赤-")
    for slug, shown in zip(slugs, good, strict=False):
        yield {"URL": f"{site}{shown.path.replace('pictures/', f'pictures/{slug}')}", "TEXT": caption(shown.scene)}
    texts = ("", " \t", "\0", "../../etc/passwd", "CON", "💜" * 40, text * 400, f"{text}.", "a" * 60_000)
    for words, shown in zip(texts, good, strict=False):
        yield {"URL": f"{site}{shown.path}", "TEXT": words}
