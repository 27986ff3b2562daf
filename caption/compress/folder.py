"""Compresses the images of a folder and of those below it into a new folder, with all that belongs to them.

Captions stay: in names, sidecars, control files, masks and tables of captions. An image that can't be read is a row of
the summary and of the log. The originals are never changed. Each file is written atomically and existing ones are
kept, so that a killed run goes on.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dreamloom.base.files.atomic import commit
from dreamloom.base.files.folder_names import path_key
from dreamloom.base.files.listing import list_folder
from dreamloom.base.images.pixels import ImageError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary
from dreamloom.base.tables.documents import DocumentError
from dreamloom.base.threads import map_ordered
from dreamloom.caption.compress.config import CompressConfig
from dreamloom.caption.compress.image import SUFFIXES, compress_image, compress_mask
from dreamloom.caption.compress.layout import Layout
from dreamloom.caption.compress.originals import Original, list_originals
from dreamloom.caption.compress.references import TABLES, References
from dreamloom.caption.filename import read_name
from dreamloom.caption.formats.rows import sanitize
from dreamloom.caption.formats.target import MADE, RIGHT, SKIPPED, Log, Target
from dreamloom.caption.new_folder import check_new_folder, claim_folder
from dreamloom.caption.sidecar_writer import encode_text
from dreamloom.scrape.datasets.image_files import read_file

_THREADS = min(16, os.cpu_count() or 1)
_MAX_OTHER_BYTES = 2**24
"""Size up to which files that are no images are copied: notes and lists, but no videos and archives."""


@dataclass
class CompressResult:
    """What was made of a folder."""

    summary: Summary = field(default_factory=Summary)
    bytes_before: int = 0
    """Of the originals of the images that are in the new folder."""
    bytes_after: int = 0


@dataclass(frozen=True)
class _Made:
    """What became of an image."""

    original: Original
    file: Path
    fault: ImageError | None = None
    is_new: bool = True
    layout: Layout | None = None
    marks: tuple[str, ...] = ()
    sizes: tuple[int, int] = (0, 0)
    """Bytes of the original and of the new image."""


def compress_folder(
    folder: Path, output: Path, config: CompressConfig, log_file: Path | None = None, progress: Progress = silent
) -> CompressResult:
    """Compresses the images of a folder into a new one.

    Args:
        folder: The images; none of its files is changed.
        output: The folder to make, or to go on with.
        config: What the new images are like.
        log_file: Gets a line appended for each file; None: nothing is logged.
        progress: Is called with the images done.

    Returns:
        The summary, whose `kept` are the images in the new folder, and bytes before and after.

    Raises:
        UserError: there is no such folder or no image in it, or `output` belongs to something else.
    """
    started, left_out, result = time.monotonic(), Counter[str](), CompressResult()
    check_new_folder(output, folder)
    originals = list_originals(folder, left_out)
    del left_out["mask"]  # they come along
    result.summary = Summary(rows=len(originals), left_out=dict(left_out))
    with Log(log_file, f"{folder}: compress to {output}") as log:
        claim_folder(output, _content(originals, config), "images, or by other settings")
        target = Target(output, log)
        with target.lock():
            target.remove_leftovers()
            make = partial(_make, output, config)
            made = []
            for done, each in enumerate(map_ordered(make, originals, _THREADS, ahead=4 * _THREADS), 1):
                _count(each, result, log)
                if each.fault is None:
                    made.append(each)
                    _carry_sidecars(each, target)
                progress(done, len(originals), f"{done - len(made)} skipped")
            _carry_others(folder, originals, {each.original.path: each.file for each in made}, target)
    result.summary.seconds = time.monotonic() - started
    return result


def _content(originals: Sequence[Original], config: CompressConfig) -> dict[str, object]:
    """What decides the new images, for the mark of the new folder."""
    digest = hashlib.blake2b(digest_size=16)
    for original in originals:
        status = os.stat(original.path) if original.path.exists() else None
        version = (status.st_size, status.st_mtime_ns) if status else None
        digest.update(f"{original.path.name}\0{original.new_name}\0{version}\0".encode("utf-8", "surrogatepass"))
    settings = config.model_dump(mode="json")
    return {"made by": "dreamloom compress", "config": settings, "images": digest.hexdigest()}


# Images


def _make(output: Path, config: CompressConfig, original: Original) -> _Made:
    """Makes one image and its masks, unless they exist."""
    file = output / f"{original.new_name}{SUFFIXES[config.format]}"
    try:
        if file.exists():
            return _Made(original, file, is_new=False, sizes=(original.path.stat().st_size, file.stat().st_size))
        data = read_file(original.path)
        made = compress_image(data, original.path.suffix.lower(), config)
        _make_masks(output, original, made.layout)  # first, as what exists is not made again
        with commit(file) as temporary:
            temporary.write_bytes(made.data)
        return _Made(original, file, None, True, made.layout, made.marks, (len(data), len(made.data)))
    except ImageError as error:
        return _Made(original, file, error)


def _make_masks(output: Path, original: Original, layout: Layout) -> None:
    for ending, name in original.masks:
        data = read_file(original.path.with_name(name))
        try:
            laid_out = compress_mask(data, layout)
        except ImageError:  # whoever reads it will say so
            laid_out = None
        suffix = os.path.splitext(name)[1] if laid_out is None else ".png"
        with commit(output / f"{original.new_name}{ending}{suffix}") as temporary:
            temporary.write_bytes(data if laid_out is None else laid_out)


def _count(made: _Made, result: CompressResult, log: Log) -> None:
    summary, name = result.summary, made.original.path.name
    where = name if made.original.place == "." else f"{made.original.place}/{name}"
    if made.fault is not None:
        summary.dropped[made.fault.reason] = summary.dropped.get(made.fault.reason, 0) + 1
        log(SKIPPED, where, made.fault.reason, made.fault.detail)
        return
    before, after = made.sizes
    summary.kept += 1
    result.bytes_before += before
    result.bytes_after += after
    summary.bytes_written += after if made.is_new else 0
    marks = [
        *made.marks,
        *(["larger than before"] if after > before else []),
        *([] if made.is_new else ["there already"]),
    ]
    for mark in marks:
        summary.marked[mark] = summary.marked.get(mark, 0) + 1
    sizes = f"{made.layout}, " if made.layout else ""
    log(
        MADE if made.is_new else RIGHT,
        where,
        "",
        f"{sizes}{before:,} to {after:,} bytes; {', '.join(marks)}".rstrip("; "),
    )


# What belongs to them


def _carry_sidecars(made: _Made, target: Target) -> None:
    """Copies the sidecars of an image under its new name; a caption that its new name can't hold gets one."""
    original = made.original
    for suffix, name in original.sidecars:
        file = original.path.with_name(name)
        if file.is_file():
            _carry(file, f"{original.new_name}{suffix}", target)
    caption = read_name(original.path.name)
    if not original.sidecars and read_name(made.file.name) != caption:
        target.add_text(f"{original.new_name}.txt", encode_text(caption))


def _carry_others(folder: Path, originals: Sequence[Original], made: Mapping[Path, Path], target: Target) -> None:
    """Copies control files, tables with the new names, and other small files, of the folders that hold images."""
    taken = {original.path for original in originals}
    taken |= {original.path.with_name(name) for original in originals for _, name in original.sidecars}
    places = {Path(original.place) for original in originals}
    output = Path(target.folder)
    new_names = {
        path_key(path.relative_to(folder).as_posix()): file.relative_to(output).as_posix()
        for path, file in made.items()
    }
    for place in sorted({above for each in places for above in (each, *each.parents)}):
        for entry in list_folder(folder / place, Counter()).files:
            path = folder / place / entry.name
            name = sanitize((place / entry.name).as_posix())
            if path in taken or not path.is_file():
                continue
            references = References(place.as_posix(), folder.absolute(), output.absolute(), new_names)
            if path.stat().st_size > _MAX_OTHER_BYTES:
                target.log(SKIPPED, name, f"no image, and larger than {_MAX_OTHER_BYTES >> 20} MiB")
            else:
                _carry(path, name, target, references)


def _carry(path: Path, name: str, target: Target, references: References | None = None) -> None:
    """Copies a small file, a table with the new names; one that can't be read is logged, and costs no other."""
    try:
        data = path.read_bytes()
    except OSError as error:
        target.log(SKIPPED, name, "can't be read", error.strerror or "")
        return
    target.add_text(name, data if references is None else _renamed(path, data, references, target.log))


def _renamed(path: Path, data: bytes, references: References, log: Log) -> bytes:
    suffix = path.suffix.lower()
    try:
        return references.rewrite(suffix, data) if suffix in TABLES else data
    except DocumentError as error:
        log.note("table that can't be read, copied as it is", f"{path}: {error}")
        return data
