"""What the Prefect dashboard shows of a run, as artifacts: progress, tables and images.

Keys are stable, so that the server shows the artifacts of a key as its history. Each is told by the run's witness.
"""

import base64
import io
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from PIL import Image
from prefect.client.schemas.actions import ArtifactCreate

from dreamloom.curate.sheet import contact_sheet
from dreamloom.flows.chain.steps import Outcome, Step
from dreamloom.flows.report.contents import CaptionedImages
from dreamloom.flows.server.witness import Witness

PROGRESS_SECONDS = 2.0
"""Seconds between two updates of a step's progress; a step that takes less shows none."""
IMAGE_BYTES = 200_000
"""Maximum size of an image in an artifact, in base64, as the server stores it in its database."""
project_name = ContextVar("project_name", default="")
"""The project, which is part of each key: of equal keys the server shows the last artifact only."""
SHEET_COLUMNS = 8
SHEET_SIDE = 128


class StepArtifacts:
    """What a step shows: one card with its progress, the charts that it renews, and at the end some of its images."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._updated = time.monotonic()
        self._has_progress = False
        self._charts: set[tuple[Path, int]] = set()

    def progress(self, done: int, total: int | None, note: str = "") -> None:
        """Brings progress and charts up to date, unless that was done less than PROGRESS_SECONDS ago."""
        if time.monotonic() - self._updated >= PROGRESS_SECONDS:
            share = 100.0 * done / total if total else 0.0
            self._publish_progress(min(100.0, share), f"{done:,} {note}".rstrip())
            self._publish_charts()
            self._updated = time.monotonic()

    def finish(self, outcome: Outcome) -> None:
        """Shows what came of the step, if it did anything."""
        if self._has_progress and outcome.finished:
            self._publish_progress(100.0, outcome.message)
        self._publish_charts()
        if outcome.changed:
            _publish_sheet(self._step)

    def _publish_progress(self, share: float, description: str) -> None:
        self._has_progress = True
        key = artifact_key(f"{self._step.title} progress")
        Witness.current().publish(key, lambda: ArtifactCreate(type="progress", data=share, description=description))

    def _publish_charts(self) -> None:
        for name, file in self._step.charts().items():
            version = (file, file.stat().st_mtime_ns)
            if version not in self._charts:
                self._charts.add(version)
                Witness.current().publish(artifact_key(name), lambda name=name, file=file: _chart(name, file))  # type: ignore[misc]


def publish_table(name: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Publishes rows as a table that can be searched and paged."""
    table = json.dumps([{name: _short(value) for name, value in row.items()} for row in rows], ensure_ascii=False)
    artifact = ArtifactCreate(type="table", data=table, description=description)
    Witness.current().publish(artifact_key(name), lambda: artifact)


def publish_text(name: str, write: Callable[[], str], description: str) -> None:
    """Publishes text in markdown, which is written in the witness's thread."""
    Witness.current().publish(
        artifact_key(name), lambda: ArtifactCreate(type="markdown", data=write(), description=description)
    )


def publish_sheet(name: str, images: CaptionedImages, description: str) -> None:
    """Publishes images with their captions as a contact sheet."""
    Witness.current().publish(
        artifact_key(name),
        lambda: _image(contact_sheet(images, columns=SHEET_COLUMNS, side=SHEET_SIDE), description),
    )


def publish_images(name: str, draw: Callable[[], Mapping[str, Image.Image]]) -> None:
    """Publishes images, by title, below each other.

    Args:
        name: of the artifact.
        draw: called in the witness's thread.
    """

    def make() -> ArtifactCreate:
        drawn = draw()
        text = "\n\n".join(_markdown(image, title, IMAGE_BYTES // len(drawn)) for title, image in drawn.items())
        return ArtifactCreate(type="markdown", data=text, description=name)

    Witness.current().publish(artifact_key(name), make)


def artifact_key(name: str) -> str:
    """Returns the key of an artifact: the project's and its own name, in lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{project_name.get()} {name}".lower()).strip("-")


def _publish_sheet(step: Step) -> None:
    """Publishes a contact sheet of what a step made, with its captions; nothing where there are no images."""
    if images := step.images():
        publish_sheet(f"{step.title} images", images, f"Some images of {step.title}")


def _chart(name: str, file: Path) -> ArtifactCreate:
    with Image.open(file) as image:
        return _image(image, name)


def _image(image: Image.Image, description: str) -> ArtifactCreate:
    return ArtifactCreate(type="markdown", data=_markdown(image, description), description=description)


def _markdown(image: Image.Image, title: str, max_bytes: int = IMAGE_BYTES) -> str:
    """An image as markdown with a data URI, which needs no file server."""
    return f"![{title}](data:image/jpeg;base64,{_as_base64(image, max_bytes)})\n"


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _as_base64(image: Image.Image, max_bytes: int) -> str:
    """The image as a JPEG in at most so many bytes of base64, at the best quality and the largest size that fit."""
    image = image.convert("RGB")
    while True:
        for quality in (85, 70, 50):
            file = io.BytesIO()
            image.save(file, "JPEG", quality=quality)
            if file.tell() * 4 // 3 < max_bytes:
                return base64.b64encode(file.getvalue()).decode("ascii")
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))
