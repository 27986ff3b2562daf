"""`dreamloom caption`: the stage, and what can be done with captions besides."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from dreamloom.base.errors import UserError
from dreamloom.base.stage import reasons
from dreamloom.caption.config import EditConfig
from dreamloom.caption.convert import ConversionResult, convert
from dreamloom.caption.edit import edit
from dreamloom.caption.edit_collection import Edit, edit_captions, preview_edits, preview_folder_edits
from dreamloom.caption.formats import FormatName, SourceName
from dreamloom.caption.formats.target import CHANGED, MADE, ODD, RIGHT, SKIPPED
from dreamloom.flows.contents import evenly_spaced
from dreamloom.flows.help_pages import HelpPage
from dreamloom.flows.showing import is_collection
from dreamloom.flows.stage_commands import FLAGS, caption
from dreamloom.flows.terminal import Terminal, duration, print_table, rows_table
from dreamloom.scrape.collection import Collection

SHOWN = 20
"""Captions that a dry run shows before and after."""

app = App(
    name="caption",
    help="Write captions with BLIP where an image came with none to be kept; or convert captions, or edit them.",
    help_formatter=HelpPage(f"{__name__}:caption"),
)
app.default(caption)


@app.command(name="convert", help_formatter=HelpPage())
def convert_(
    folder: Path,
    *,
    from_: Annotated[SourceName, Parameter(name="--from")],
    to: FormatName,
    output: Path | None = None,
    log: Path | None = None,
) -> None:
    """Put captions into another convention: into a new folder, or as sidecars beside the images.

    Parameters
    ----------
    folder
        The images, the shards, or a collection.
    from_
        Where the captions are: filename is what a trainer reads, a sidecar where there is one, else the name.
    to
        Where they shall be.
    output
        The folder to make, of hard links. Left out, and to is txt, caption or yaml: sidecars are added in the folder.
    log
        The file that gets a line for each file made, skipped or odd; by default dreamloom-FOLDER-captions.log, here.
    """
    log = log or _log_of(folder)
    with Terminal() as terminal, terminal.watch(f"convert {folder.name}") as progress:
        done = convert(folder.expanduser(), from_, to, output, log, progress)
    _tell("convert", folder, done, log)


@app.command(name="edit", help_formatter=HelpPage(f"{__name__}:edit_"))
def edit_(
    folder: Path,
    *,
    output: Path | None = None,
    from_: Annotated[FormatName, Parameter(name="--from")] = "filename",
    to: FormatName | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    undo: Annotated[bool, Parameter(negative="")] = False,
    log: Path | None = None,
    config: Annotated[EditConfig, FLAGS] = EditConfig(),
) -> None:
    """Edit captions as a set, by the same rules for each: in a collection, or from a folder into a new one.

    In a collection these rules take the place of earlier ones; what each caption was before stays in it, and no model
    is asked again. A project's own rules are what project.yaml says under caption: edit.

    Parameters
    ----------
    folder
        A collection, or a folder of images with captions, or of shards.
    output
        Of a folder: the folder to make, of hard links. Originals stay as they are.
    from_
        Of a folder: where the captions are; see convert.
    to
        Of a folder: where they shall be; by default where they were.
    dry_run
        Show captions before and after; write nothing.
    undo
        Of a collection: take the edits back.
    log
        Of a folder: the file that gets a line for each file; by default dreamloom-FOLDER-captions.log, here.
    """
    if (config == EditConfig()) != undo:
        raise UserError("Name a rule, such as --prefix, or --undo alone, which takes the edits of a collection back.")
    place = folder.expanduser().absolute()
    if is_collection(place):
        _edit_collection(Collection(place), config, dry_run)
        return
    if not place.is_dir():
        raise UserError(f"{folder} is no folder; name a collection, or a folder of images with captions.")
    if undo:
        raise UserError(f"{folder} is no collection, so it has no edits to take back.")
    with Terminal() as terminal, terminal.watch(f"edit {place.name}") as progress:
        if dry_run:
            _show(preview_folder_edits(place, from_, config, progress))
            return
        log = log or _log_of(folder)
        done = convert(
            place, from_, to or from_, output, log, progress, lambda row, name: edit(row.caption or "", config, name)
        )
    _tell("edit", folder, done, log)


def _edit_collection(collection: Collection, rules: EditConfig, dry_run: bool) -> None:
    edits = preview_edits(collection, rules)
    if dry_run:
        _show(edits)
        return
    with Terminal() as terminal, terminal.watch(f"edit {collection.name}") as progress:
        earlier = edit_captions(collection, rules, progress)
    print(f"edit {collection.name}: {_changed(edits)}")
    for one in earlier:
        if one not in (EditConfig(), rules):
            print(f"taken back: {one.model_dump_json(exclude_defaults=True)}")


def _show(edits: Sequence[Edit]) -> None:
    changed = evenly_spaced([one for one in edits if one.after != one.before], SHOWN)
    if changed:
        print_table(rows_table(f"Captions before and after, at most {SHOWN} of them", list(map(asdict, changed))))
    print(f"{_changed(edits)}; nothing was written")


def _changed(edits: Sequence[Edit]) -> str:
    return f"{sum(one.after != one.before for one in edits):,} of {len(edits):,} captions change"


def _tell(verb: str, folder: Path, done: ConversionResult, log: Path) -> None:
    counts = {what: done.log.count(what) for what in (MADE, RIGHT, CHANGED, SKIPPED)}
    pictures = f"{done.images:,} images, {done.kept:,} with captions; {duration(done.seconds)}"
    print(f"{verb} {folder.absolute().name}: {pictures}")
    files = f"files made {counts[MADE]:,}, right already {counts[RIGHT]:,}, skipped {counts[SKIPPED]:,}"
    print(files + (f"; captions changed {counts[CHANGED]:,}" if counts[CHANGED] else ""))
    for what in (SKIPPED, ODD):
        if why := {why: count for (kind, why), count in done.log.counts.items() if kind == what}:
            print(f"{what}: {reasons(why)}")
    print(f"log: {log}")


def _log_of(folder: Path) -> Path:
    return Path(f"dreamloom-{folder.absolute().name}-captions.log")
