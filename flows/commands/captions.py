"""`dreamloom caption`: the stage, and its subcommands that convert and edit captions."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from dreamloom.base.errors import UserError
from dreamloom.base.files.remote import address_of
from dreamloom.base.stage import PathKind, reasons
from dreamloom.caption.config import CaptionConfig, EditConfig
from dreamloom.caption.convert import ConversionResult, convert
from dreamloom.caption.edit import edit
from dreamloom.caption.edit_collection import Edit, edit_captions, preview_edits, preview_folder_edits
from dreamloom.caption.folder import caption_folder
from dreamloom.caption.formats import FormatName, SourceName
from dreamloom.caption.formats.target import CHANGED, MADE, ODD, RIGHT, SKIPPED
from dreamloom.curate.source import is_collection
from dreamloom.flows.chain.steps import CaptionStep
from dreamloom.flows.commands.step_command import FLAGS, RAY, collection_at, is_plain_folder, refuse_output, run_step
from dreamloom.flows.project.ray_config import RayConfig
from dreamloom.flows.report.contents import evenly_spaced
from dreamloom.flows.terminal.help_pages import HelpPage
from dreamloom.flows.terminal.terminal import Terminal, duration, print_table, rows_table, stage_line
from dreamloom.scrape.collection import Collection

SHOWN = 20
"""Captions that a dry run shows."""


def caption(
    folder: Annotated[Path, PathKind.ADDRESS],
    *,
    output: Path | None = None,
    link: Annotated[bool, Parameter(negative="")] = False,
    ray: Annotated[RayConfig | None, RAY] = None,
    config: Annotated[CaptionConfig, FLAGS] = CaptionConfig(),
) -> None:
    """Caption the images that came without a caption to keep.

    Parameters
    ----------
    folder
        Collection with images (its folder or address; after choose, only the chosen ones are captioned), or any folder
        of images.
    output
        For folders: table (.csv, .jsonl, .parquet) or folder to make, with copies of the images under their captions.
        Without it, a .txt is written beside each image that has no caption.
    link
        For folders: see convert.
    """
    if is_plain_folder(folder):
        with Terminal() as terminal, terminal.watch(f"caption {folder.name}") as progress:
            summary = caption_folder(folder.expanduser(), config, output, progress, link)
        print(stage_line("caption", folder.absolute().name, summary))
        return
    refuse_output(folder, output)
    run_step(CaptionStep(collection_at(folder), config, ray=ray))


app = App(
    name="caption",
    help="Caption images that came without a caption to keep; or convert or edit captions.",
    usage="Usage: dreamloom caption [OPTIONS] FOLDER\n       dreamloom caption COMMAND",
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
    link: Annotated[bool, Parameter(negative="")] = False,
    log: Path | None = None,
) -> None:
    """Convert captions to another convention, in a new folder or as sidecars beside the images.

    Parameters
    ----------
    folder
        Folder of images or shards, or a collection.
    from_
        Where the captions are. filename is what a trainer reads: a sidecar where there is one, else the file name.
    to
        Where the captions are written.
    output
        Folder to make, with copies of the images. Without it, txt, caption and yaml write sidecars into FOLDER.
    link
        Hard links instead of copies, which cost no space: a program that writes into one changes your original.
    log
        File with a line for each file made, skipped or odd; by default dreamloom-FOLDER-captions.log in the current
        folder.
    """
    log = log or _default_log(folder)
    with Terminal() as terminal, terminal.watch(f"convert {folder.name}") as progress:
        result = convert(folder.expanduser(), from_, to, output, log, progress, link=link)
    _print_result("convert", folder, result, log)


@app.command(name="edit", help_formatter=HelpPage(f"{__name__}:edit_"))
def edit_(
    folder: Annotated[Path, PathKind.ADDRESS],
    *,
    output: Path | None = None,
    link: Annotated[bool, Parameter(negative="")] = False,
    from_: Annotated[FormatName, Parameter(name="--from")] = "filename",
    to: FormatName | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    undo: Annotated[bool, Parameter(negative="")] = False,
    log: Path | None = None,
    config: Annotated[EditConfig, FLAGS] = EditConfig(),
) -> None:
    """Edit all captions by the same rules, in a collection or from a folder into a new one.

    In a collection the rules replace earlier ones. It keeps the unedited captions, so no model runs again. In a
    project, set the rules in project.yaml, under caption: edit.

    Parameters
    ----------
    folder
        Collection (its folder or address), or folder of captioned images or shards.
    output
        For folders: folder to make, with copies of the images. The originals stay as they are.
    link
        For folders: see convert.
    from_
        For folders: where the captions are; see convert.
    to
        For folders: where the captions are written; by default as in --from.
    dry_run
        Show captions before and after; write nothing.
    undo
        For collections: undo the edits.
    log
        For folders: file with a line for each file; by default dreamloom-FOLDER-captions.log in the current folder.
    """
    if (config == EditConfig()) != undo:
        raise UserError("Name a rule, such as --prefix, or --undo alone, which undoes the edits of a collection.")
    path = folder.expanduser().absolute()
    if address_of(folder) or is_collection(path):
        _edit_collection(collection_at(folder), config, dry_run)
        return
    if not path.is_dir():
        raise UserError(f"{folder} is not a folder; name a collection, or a folder of captioned images.")
    if undo:
        raise UserError(f"{folder} is not a collection, so there are no edits to undo.")
    with Terminal() as terminal, terminal.watch(f"edit {path.name}") as progress:
        if dry_run:
            _print_preview(preview_folder_edits(path, from_, config, progress))
            return
        log = log or _default_log(folder)
        result = convert(
            path,
            from_,
            to or from_,
            output,
            log,
            progress,
            lambda row, name: edit(row.caption or "", config, name),
            link,
        )
    _print_result("edit", folder, result, log)


def _edit_collection(collection: Collection, rules: EditConfig, dry_run: bool) -> None:
    edits = preview_edits(collection, rules)
    if dry_run:
        _print_preview(edits)
        return
    with Terminal() as terminal, terminal.watch(f"edit {collection.name}") as progress:
        earlier_rules = edit_captions(collection, rules, progress)
    print(f"edit {collection.name}: {_count_changes(edits)}")
    for earlier in earlier_rules:
        if earlier not in (EditConfig(), rules):
            print(f"undone: {earlier.model_dump_json(exclude_defaults=True)}")


def _print_preview(edits: Sequence[Edit]) -> None:
    changed = evenly_spaced([edit for edit in edits if edit.after != edit.before], SHOWN)
    if changed:
        print_table(rows_table(f"Captions before and after (at most {SHOWN})", list(map(asdict, changed))))
    print(f"{_count_changes(edits)}; nothing was written")


def _count_changes(edits: Sequence[Edit]) -> str:
    return f"{sum(edit.after != edit.before for edit in edits):,} of {len(edits):,} captions change"


def _print_result(verb: str, folder: Path, result: ConversionResult, log: Path) -> None:
    counts = {kind: result.log.count(kind) for kind in (MADE, RIGHT, CHANGED, SKIPPED)}
    images = f"{result.images:,} images, {result.kept:,} with captions; {duration(result.seconds)}"
    print(f"{verb} {folder.absolute().name}: {images}")
    files = f"files made {counts[MADE]:,}, right already {counts[RIGHT]:,}, skipped {counts[SKIPPED]:,}"
    print(files + (f"; captions changed {counts[CHANGED]:,}" if counts[CHANGED] else ""))
    for kind in (SKIPPED, ODD):
        if by_reason := {reason: count for (of, reason), count in result.log.counts.items() if of == kind}:
            print(f"{kind}: {reasons(by_reason)}")
    print(f"log: {log}")


def _default_log(folder: Path) -> Path:
    return Path(f"dreamloom-{folder.absolute().name}-captions.log")
