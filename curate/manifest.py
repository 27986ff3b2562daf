"""The manifest of a workspace, dataset.parquet: what became of every image of every source."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamloom.base.errors import UserError
from dreamloom.base.files.own_folders import TRAINING_MANIFEST
from dreamloom.base.files.remote import is_remote
from dreamloom.base.tables.parquet_metadata import read_metadata
from dreamloom.curate.history import HISTORY
from dreamloom.scrape.collection import Collection

MANIFEST = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # Role
        pa.field("split", pa.string(), nullable=False),  # train, heldout or dropped
        pa.field("file", pa.string()),  # relative to the workspace; null where dropped
        pa.field("multiply", pa.float64()),  # how often an epoch shows it; null unless train
        pa.field("concepts", pa.list_(pa.string())),  # what it shows, of the concepts that are followed
        pa.field("file_sha256", pa.string()),  # of the file, where it is no link to the image: a crop
        *(HISTORY.field(name) for name in HISTORY.names if name not in ("key", "source", "role", "bytes")),
    ]
)
"""One row per record of every source, including those that were dropped: training first, then in order. A dropped row
has the stage that dropped it, the reason, and a detail."""

TRAIN, HELD_OUT, DROPPED = "train", "heldout", "dropped"
NOT_DRAWN = "not_drawn"
"""Why an image is left out whose source's share of the ground truth is less than one image."""
NOT_REHEARSED = "not_rehearsed"
"""Why an image is left out that must not be trained on, and that is not needed to measure by."""


def manifest_path(workspace: Path) -> Path:
    """Returns where the manifest of a workspace lies."""
    return workspace / TRAINING_MANIFEST


def read_manifest(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads the rows of a manifest (MANIFEST).

    Args:
        path: the manifest.
        columns: names of the columns to read; None: all.

    Raises:
        UserError: it is missing or unreadable, or a newer release wrote it in another format.
    """
    read_manifest_metadata(path)  # which refuses what would be misread
    try:
        rows = pq.read_table(path, schema=MANIFEST, columns=columns, partitioning=None)
        return rows.replace_schema_metadata(None)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"The manifest {path} can't be read ({error}); run balance, which makes it.") from error


def read_manifest_metadata(path: Path) -> dict[str, str]:
    """Reads how a manifest was made (recipe, content, config, summary, sources); empty where there is none.

    Raises:
        UserError: it is unreadable, or a newer release wrote it in another format.
    """
    return read_metadata(path, "balance")


def content_digest(path: Path) -> str:
    """Returns a hash of what a manifest gives to train on and to measure by: images, captions, and multiplies.

    Results made from it depend on nothing else, so captions that were made again and are the same begin no new run.

    Raises:
        UserError: it is missing.
    """
    metadata = read_manifest_metadata(path)
    if "content" not in metadata:
        raise UserError(f"The manifest {path} is not there, or an old one; run balance, which makes it.")
    return metadata["content"]


def read_sources(path: Path) -> list[dict[str, Any]]:
    """Reads the sources of a manifest: name, role, and root, the collection's address or relative to the workspace."""
    return list(json.loads(read_manifest_metadata(path).get("sources", "[]")))


def read_collections(workspace: Path) -> dict[str, Collection]:
    """Reads the name of each source of a workspace's manifest → its collection."""
    sources = {source["name"]: source["root"] for source in read_sources(manifest_path(workspace))}
    return {
        name: Collection(root if is_remote(root) else (workspace / root).resolve()) for name, root in sources.items()
    }
