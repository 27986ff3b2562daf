"""`dreamloom caption`: the stage, and what can be done with captions besides."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from caption.convert import Converted, convert
from caption.formats import FormatName
from caption.formats.target import CHANGED, MADE, ODD, RIGHT, SKIPPED
from flows.stage_commands import caption
from flows.terminal import Terminal, duration, reasons

app = App(
    name="caption",
    help="Write captions with BLIP where a picture came with none to be kept; or convert captions, or edit them.",
)
app.default(caption)


@app.command(name="convert")
def convert_(
    folder: Path,
    *,
    from_: Annotated[FormatName, Parameter(name="--from")],
    to: FormatName,
    output: Path | None = None,
    log: Path | None = None,
) -> None:
    """Put captions into another convention: into a new folder, or as sidecars beside the pictures.

    Parameters
    ----------
    folder
        The pictures, or the shards.
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


def _tell(verb: str, folder: Path, done: Converted, log: Path) -> None:
    counts = {what: done.log.count(what) for what in (MADE, RIGHT, CHANGED, SKIPPED)}
    pictures = f"{done.pictures:,} pictures, {done.kept:,} with captions; {duration(done.seconds)}"
    print(f"{verb} {folder.absolute().name}: {pictures}")
    files = f"files made {counts[MADE]:,}, right already {counts[RIGHT]:,}, skipped {counts[SKIPPED]:,}"
    print(files + (f"; captions changed {counts[CHANGED]:,}" if counts[CHANGED] else ""))
    for what in (SKIPPED, ODD):
        if why := {why: count for (kind, why), count in done.log.counts.items() if kind == what}:
            print(f"{what}: {reasons(why)}")
    print(f"log: {log}")


def _log_of(folder: Path) -> Path:
    return Path(f"dreamloom-{folder.absolute().name}-captions.log")
