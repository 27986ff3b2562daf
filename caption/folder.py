"""Captions a plain folder of images: beside them, in a table, or in the names of a new folder. Makes no collection.

What a person wrote is kept, as in the stage. Sidecars that were written are not written again, and what goes into a
table or a new folder waits in a journal beside it, so that a killed run goes on.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import create_file
from dreamloom.base.files.folder_names import FolderNames
from dreamloom.base.files.given_names import reads_like_a_caption
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary
from dreamloom.base.tables.tables import TABLE_SUFFIXES, write_table
from dreamloom.base.text import without_surrogates
from dreamloom.caption.candidates import find_candidates
from dreamloom.caption.check import check
from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.convert import convert
from dreamloom.caption.edit import edit
from dreamloom.caption.filename import MAX_BYTES, RESERVED
from dreamloom.caption.formats.rows import Row as NamedRow
from dreamloom.caption.ranking import DOUBTFUL, Candidate, is_doubtful, select_best
from dreamloom.caption.reuse import CANDIDATES_VERSION, candidate_recipes
from dreamloom.caption.sidecar import read_caption
from dreamloom.caption.sidecar_writer import encode_text
from dreamloom.scrape.collection import CaptionKind
from dreamloom.scrape.collection.journal import Journal
from dreamloom.scrape.collection.schema import Row
from dreamloom.scrape.datasets.image_files import find_images

CAPTIONED_ALREADY = "captioned already"
"""The summary's name for images with a caption that a person wrote, or an earlier run."""


@dataclass(frozen=True)
class FolderImage:
    """An image of the folder."""

    name: str
    """Relative to the folder: "john/1.jpg"."""
    path: Path
    text: str | None
    """What a person wrote, in a sidecar or in the name; None: nothing."""
    sidecar: Path | None
    """The .txt that is its own; None: its name would be too long."""

    @cached_property
    def key(self) -> str:
        """Its name with what changes when its content does; it seeds sampling."""
        status = self.path.stat()
        return f"{without_surrogates(self.name)} {status.st_size} {status.st_mtime_ns}"

    def edited(self, text: str, config: CaptionConfig) -> str:
        """Returns a caption of it after the edits."""
        return edit(text, config.edit, self.path.absolute().parent.name)


def caption_folder(
    folder: Path, config: CaptionConfig, output: Path | None = None, progress: Progress = silent, link: bool = False
) -> Summary:
    """Captions the images of a folder and of those below it.

    Args:
        folder: The images; none of its files is changed.
        config: The caption stage's; `keep_kinds` says whether captions that people wrote are kept.
        output: A table (.csv, .jsonl, .parquet) or a folder to make; None: a .txt beside each image without a caption.
        progress: Is called with the images done.
        link: A new folder gets hard links, by which whoever writes into an image changes the original.

    Returns:
        The summary; `kept` are the images with captions.

    Raises:
        UserError: there is no such folder or no image in it, a model can't be used, or `output` exists.
    """
    check(config)
    for source in config.templates.keys() - {folder.absolute().name}:
        raise UserError(f"templates.{source}: there is no such source; this folder is called {folder.absolute().name}.")
    started, left_out = time.monotonic(), Counter[str]()
    images = list_folder_images(folder, left_out)
    summary = Summary(rows=len(images), left_out=dict(left_out))
    if output is None:
        _write_sidecars(images, config, folder, summary, progress)
    else:
        _write_output(images, config, folder, output, summary, progress, link)
    summary.seconds = time.monotonic() - started
    return summary


def list_folder_images(folder: Path, left_out: Counter[str] | None = None) -> list[FolderImage]:
    """Lists the images of a folder and of those below it, with what people wrote about them.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    found = find_images(folder, left_out)
    stems = Counter(_stem(path) for path, _ in found)
    return [
        FolderImage(path.relative_to(folder).as_posix(), path, _text(path, siblings), _sidecar(path, stems))
        for path, siblings in found
    ]


def _text(path: Path, siblings: FolderNames) -> str | None:
    caption = read_caption(path, siblings)
    written = caption.origin != "name" or reads_like_a_caption(caption.text)
    return without_surrogates(caption.text) if written and caption.text.strip() else None


def _stem(path: Path) -> tuple[Path, str]:
    return path.parent, path.stem.casefold()


def _sidecar(path: Path, stems: Mapping[tuple[Path, str], int]) -> Path | None:
    """Returns x.txt; or x.jpg.txt where another image is called x, too, or x.txt would be a control file."""
    shared = stems[_stem(path)] > 1 or path.stem.casefold() in RESERVED
    sidecar = path.with_name(f"{path.name}.txt") if shared else path.with_suffix(".txt")
    return sidecar if len(os.fsencode(sidecar.name)) <= MAX_BYTES else None


def _write_sidecars(
    images: Sequence[FolderImage], config: CaptionConfig, folder: Path, summary: Summary, progress: Progress
) -> None:
    keeps, pending = CaptionKind.HUMAN in config.keep_kinds, []
    for image in images:
        has_sidecar = image.sidecar is not None and image.sidecar.exists()
        if image.text is not None and (keeps or has_sidecar):
            summary.kept += 1
        elif has_sidecar:
            _count(summary.dropped, "blank sidecar, which stays")
        elif image.sidecar is None:
            _count(summary.dropped, "name too long for a .txt beside it")
        else:
            pending.append(image)
    _count(summary.marked, CAPTIONED_ALREADY, summary.kept)
    for place in {image.path.parent for image in pending}:
        if not os.access(place, os.W_OK):  # before the models work
            raise UserError(f"{place} may not be written into; name an --output, a table or a new folder.")
    for image, best in _captioned(pending, config, folder, summary, progress):
        if image.sidecar and create_file(image.sidecar, encode_text(image.edited(best.caption, config))):
            summary.kept += 1
        else:
            _count(summary.dropped, "sidecar by someone else, which stays")


def _write_output(
    images: Sequence[FolderImage],
    config: CaptionConfig,
    folder: Path,
    output: Path,
    summary: Summary,
    progress: Progress,
    link: bool,
) -> None:
    journal = _journal(config, folder, output)
    human = {image.name for image in images if image.text is not None and CaptionKind.HUMAN in config.keep_kinds}
    _count(summary.marked, CAPTIONED_ALREADY, len(human))
    try:
        with journal:
            done = {row["name"] for row in map(journal.rows.get, (image.key for image in images)) if row}
            pending = [image for image in images if image.name not in human | done]
            for image, best in _captioned(pending, config, folder, summary, progress):
                journal.add({"key": image.key, "name": image.name, **best.to_row()})
            rows = _rows(images, human, journal.rows, config)
            summary.kept = len(rows)
            if output.suffix.lower() in TABLE_SUFFIXES:
                write_table(output, _table(rows, folder, output))
            else:
                _write_folder({row["name"]: row["text"] for row in rows}, folder, output, progress, link)
        journal.remove()
    finally:
        if not journal.rows:
            journal.remove()


def _journal(config: CaptionConfig, folder: Path, output: Path) -> Journal:
    """Returns what is known of the captions for an output; it lies beside it until the output is whole."""
    recipes = candidate_recipes(config, folder.absolute().name)
    file = output.with_name(f".{output.name}.captions.jsonl")
    if output.exists() and not file.exists():
        raise UserError(f"{output} exists, and stays as it is; name an --output that doesn't exist yet.")
    if output.suffix.lower() not in TABLE_SUFFIXES and output.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{output} lies in {folder}; name an --output that lies elsewhere.")
    return Journal(file, {"version": CANDIDATES_VERSION, "models": [recipes.captioner, recipes.clip]})


def _captioned(
    images: Sequence[FolderImage], config: CaptionConfig, folder: Path, summary: Summary, progress: Progress
) -> Iterator[tuple[FolderImage, Candidate]]:
    """Yields each image with the best of its candidates; the summary counts those that have none, by reason."""
    by_key = {image.key: image for image in images}
    records = [{"key": key, "text": None, "text_kind": CaptionKind.NONE} for key in by_key]
    results = find_candidates(config, folder.absolute().name, records, lambda record: by_key[record["key"]].path, {})
    for done, (record, candidates) in enumerate(results, 1):
        if isinstance(candidates, str):
            _count(summary.dropped, candidates)
        else:
            best, _ = select_best(candidates)
            if is_doubtful(best, config):
                _count(summary.marked, DOUBTFUL)
            yield by_key[record["key"]], best
        progress(done, len(images), f"{done - sum(summary.dropped.values())} captioned")


def _rows(
    images: Sequence[FolderImage], human: AbstractSet[str], journaled: Mapping[str, Row], config: CaptionConfig
) -> list[Row]:
    rows = []
    for image in images:
        written: Row = {"caption": image.text, "kind": CaptionKind.HUMAN}
        best = written if image.name in human else journaled.get(image.key)
        if best is not None:
            own = {"name": image.name, "text": image.edited(best["caption"], config)}
            rows.append({**own, "kind": best["kind"], "similarity": best.get("similarity")})
    return rows


def _table(rows: Sequence[Row], folder: Path, output: Path) -> pa.Table:
    """Returns a table as `dreamloom train` reads it: the files relative to the table."""
    inside = os.path.relpath(folder.resolve(), output.resolve().parent)
    columns: dict[str, Any] = {
        "file_name": [without_surrogates(os.path.normpath(f"{inside}/{row['name']}")) for row in rows],
        **{name: [row[name] for row in rows] for name in ("text", "kind", "similarity")},
    }
    types = {"file_name": pa.string(), "text": pa.string(), "kind": pa.string(), "similarity": pa.float32()}
    return pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})


def _write_folder(texts: Mapping[str, str], folder: Path, output: Path, progress: Progress, link: bool) -> None:
    """Makes a folder of the images with captions, in EveryDream's names."""

    def change(row: NamedRow, _: str) -> str | None:
        return texts.get(row.name)

    convert(folder, "filename", "filename", output, None, progress, change, link)


def _count(counts: dict[str, int], reason: str, number: int = 1) -> None:
    if number:
        counts[reason] = counts.get(reason, 0) + number
