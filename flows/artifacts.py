"""What the dashboard shows of a run: progress, tables, contact sheets. All of it Prefect artifacts."""

import base64
import io
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from uuid import UUID

from PIL import Image
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from dreamloom.curate.sheet import contact_sheet

PROGRESS_SECONDS = 2.0
"""Seconds between two updates: each costs some 28 ms (research/prefect.md §5)."""
IMAGE_BYTES = 200_000
"""Of an image inside a markdown artifact, as base64: it lies in the server's database."""
project_name = ContextVar("project_name", default="")
"""The project whose artifacts are made: the server shows the last one of a key, whichever project it is of."""
SHEET_COLUMNS = 8
SHEET_SIDE = 128


class ArtifactProgress:
    """Progress as a ring on the task in the dashboard.

    Args:
        also: called with each update, for what else is to be brought up to date.
    """

    def __init__(self, name: str, also: Callable[[], None]) -> None:
        made = create_progress_artifact(progress=0.0, key=artifact_key(name))
        assert isinstance(made, UUID)  # a coroutine only where the caller is one
        self._id = made
        self._also = also
        self._updated = time.monotonic()

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Updates the artifact, if the last update is long enough ago."""
        if time.monotonic() - self._updated >= PROGRESS_SECONDS:
            share = 100.0 * done / total if total else 0.0
            update_progress_artifact(self._id, progress=min(100.0, share), description=f"{done:,} {note}".rstrip())
            self._also()
            self._updated = time.monotonic()

    def finish(self, said: str) -> None:
        """All is done."""
        update_progress_artifact(self._id, progress=100.0, description=said)
        self._also()


class ChartPublisher:
    """Pictures that a step renews while it works: each is published when its file is new.

    Args:
        files: name → file, of those that are there.
    """

    def __init__(self, files: Callable[[], Mapping[str, Path]]) -> None:
        self._files = files
        self._published: set[tuple[Path, int]] = set()

    def publish(self) -> None:
        """Publishes what is new."""
        for name, file in self._files().items():
            version = (file, file.stat().st_mtime_ns)
            if version not in self._published:
                self._published.add(version)
                with Image.open(file) as picture:
                    publish_image(name, picture, name)


def publish_table(name: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """A table that can be searched and paged."""
    table = [{name: _short(value) for name, value in row.items()} for row in rows]
    create_table_artifact(table, key=artifact_key(name), description=description)


def publish_sheet(name: str, pictures: Sequence[tuple[Path, str]], description: str) -> None:
    """A contact sheet of images with what is written under them; none: no artifact."""
    if pictures:
        publish_image(name, contact_sheet(pictures, columns=SHEET_COLUMNS, side=SHEET_SIDE), description)


def publish_image(name: str, picture: Image.Image, description: str) -> None:
    """An image as markdown with a data URI, the one way that needs no file server."""
    text = f"![{description}](data:image/jpeg;base64,{_as_base64(picture)})\n"
    create_markdown_artifact(text, key=artifact_key(name), description=description)


def artifact_key(name: str) -> str:
    """A name as Prefect wants an artifact's key, after that of the project: small letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{project_name.get()} {name}".lower()).strip("-")


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _as_base64(picture: Image.Image) -> str:
    """A JPEG whose base64 has at most IMAGE_BYTES, at the best quality and then size for which that holds."""
    picture = picture.convert("RGB")
    while True:
        for quality in (85, 70, 50):
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality)
            if file.tell() * 4 // 3 < IMAGE_BYTES:
                return base64.b64encode(file.getvalue()).decode("ascii")
        picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)))
