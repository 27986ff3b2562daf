"""Publishes what the Prefect dashboard shows of a run, as artifacts: progress, tables and images."""

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
"""Seconds between two updates, each of which takes about 28 ms."""
IMAGE_BYTES = 200_000
"""Maximum size of an image in an artifact, in base64, as the server stores it in its database."""
project_name = ContextVar("project_name", default="")
"""The project, which is part of each key: of equal keys the server shows the last artifact only."""
SHEET_COLUMNS = 8
SHEET_SIDE = 128


class ArtifactProgress:
    """Shows progress as a ring at the task in the dashboard.

    Args:
        also: called with each update, for what else is to be brought up to date.
    """

    def __init__(self, name: str, also: Callable[[], None]) -> None:
        artifact = create_progress_artifact(progress=0.0, key=artifact_key(name))
        assert isinstance(artifact, UUID)  # a coroutine for asynchronous callers only
        self._id = artifact
        self._also = also
        self._updated = time.monotonic()

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Updates the artifact, unless the last update is more recent than PROGRESS_SECONDS."""
        if time.monotonic() - self._updated >= PROGRESS_SECONDS:
            share = 100.0 * done / total if total else 0.0
            update_progress_artifact(self._id, progress=min(100.0, share), description=f"{done:,} {note}".rstrip())
            self._also()
            self._updated = time.monotonic()

    def finish(self, message: str) -> None:
        """Shows that all is done, with a message."""
        update_progress_artifact(self._id, progress=100.0, description=message)
        self._also()


class ChartPublisher:
    """Publishes the image files that a step renews while it runs.

    Args:
        files: returns the existing files by name.
    """

    def __init__(self, files: Callable[[], Mapping[str, Path]]) -> None:
        self._files = files
        self._published: set[tuple[Path, int]] = set()

    def publish(self) -> None:
        """Publishes the files that are new or changed."""
        for name, file in self._files().items():
            version = (file, file.stat().st_mtime_ns)
            if version not in self._published:
                self._published.add(version)
                with Image.open(file) as image:
                    publish_image(name, image, name)


def publish_table(name: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Publishes rows as a table that can be searched and paged."""
    table = [{name: _short(value) for name, value in row.items()} for row in rows]
    create_table_artifact(table, key=artifact_key(name), description=description)


def publish_sheet(name: str, images: Sequence[tuple[Path, str]], description: str) -> None:
    """Publishes a contact sheet of images with the text below each; nothing where there are no images."""
    if images:
        publish_image(name, contact_sheet(images, columns=SHEET_COLUMNS, side=SHEET_SIDE), description)


def publish_image(name: str, image: Image.Image, description: str) -> None:
    """Publishes an image as markdown with a data URI, which needs no file server."""
    text = f"![{description}](data:image/jpeg;base64,{_as_base64(image)})\n"
    create_markdown_artifact(text, key=artifact_key(name), description=description)


def artifact_key(name: str) -> str:
    """Returns the key of an artifact: the project's and its own name, in lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{project_name.get()} {name}".lower()).strip("-")


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _as_base64(image: Image.Image) -> str:
    """The image as a JPEG in at most IMAGE_BYTES of base64, at the best quality and the largest size that fit."""
    image = image.convert("RGB")
    while True:
        for quality in (85, 70, 50):
            file = io.BytesIO()
            image.save(file, "JPEG", quality=quality)
            if file.tell() * 4 // 3 < IMAGE_BYTES:
                return base64.b64encode(file.getvalue()).decode("ascii")
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))
