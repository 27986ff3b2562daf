"""Rows of the records table and the image files that they name, as all sources write them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from dreamloom.base.files.atomic import fsync, fsync_all
from dreamloom.base.files.listing import is_left_out
from dreamloom.base.images.missing_end import NOTE as MISSING_END
from dreamloom.base.stage import Summary
from dreamloom.scrape.collection.schema import Row, Status

STORED_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
"""Pillow's name of each format that a collection stores → file name suffix."""

FILE_COLUMNS = ("image", "width", "height", "bytes", "image_sha256")
"""Columns of the records that describe the stored file; null where there is none."""
IMAGE_COLUMNS = (*FILE_COLUMNS, "original_width", "original_height", "sha256", "pixels_sha256", "consent", "detail")
"""Columns of the records that describe the image itself, whatever row it is of."""


def image_columns(
    path: Path, size: tuple[int, int], original_size: tuple[int, int], num_bytes: int, sha256: str
) -> Row:
    """Returns the columns of the records that describe a stored image.

    Args:
        path: the image's file, in images/<part> of a collection.
        size: width and height in pixels, upright, as stored.
        original_size: width and height before the image was shrunk.
        num_bytes: size of the stored file.
        sha256: hash of the original bytes.
    """
    return {
        "image": f"images/{path.parent.name}/{path.name}",
        "width": size[0],
        "height": size[1],
        "original_width": original_size[0],
        "original_height": original_size[1],
        "bytes": num_bytes,
        "sha256": sha256,
        "image_sha256": file_sha256(path),
    }


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def summarize_records(rows: Sequence[Row]) -> Summary:
    """Counts the rows of a part: `kept` are the stored images, `dropped` counts the others by status."""
    counts = Counter(row["status"] for row in rows)
    kept = counts.pop(Status.OK, 0)
    num_bytes = sum(row["bytes"] or 0 for row in rows)
    mended = sum(row["status"] == Status.OK and row.get("detail") == MISSING_END for row in rows)
    marked = {"missing_end": mended} if mended else {}
    return Summary(len(rows), kept, dict(sorted(counts.items())), marked, bytes_written=num_bytes)


def settle_images(folder: Path, rows: Iterable[Row]) -> None:
    """Makes a part's image folder ready for its records to be committed.

    Removes the files that no row names, such as duplicates and those of an older plan, and waits until the disk has the
    others.
    """
    names = {row["image"].rpartition("/")[2] for row in rows if row["image"]}
    for path in folder.glob("*"):
        if path.name not in names and not is_left_out(path.name):  # what systems leave is not ours
            path.unlink()
    fsync_all(folder / name for name in sorted(names))
    if names:
        fsync(folder)
