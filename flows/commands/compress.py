"""`dreamloom compress`, which needs no model and so starts fast."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dreamloom.caption.compress.config import CompressConfig
from dreamloom.caption.compress.folder import compress_folder
from dreamloom.flows.terminal.terminal import Terminal, size, stage_line


def compress(
    folder: Path,
    *,
    to: Path,
    log: Path | None = None,
    config: Annotated[CompressConfig, Parameter(name="*")] = CompressConfig(),
) -> None:
    """Compress a folder of images into a new one, with its captions, control files and masks.

    Images are upright and in sRGB, and never enlarged. The originals stay as they are. After a kill, the same command
    goes on.

    Parameters
    ----------
    folder
        Folder of images.
    to
        Folder to make.
    log
        File with a line for each image; by default dreamloom-FOLDER-compress.log in the current folder.
    """
    name = folder.absolute().name
    log = log or Path(f"dreamloom-{name}-compress.log")
    with Terminal() as terminal, terminal.watch(f"compress {name}") as progress:
        result = compress_folder(folder.expanduser(), to.expanduser(), config, log, progress)
    print(stage_line("compress", name, result.summary))
    print(f"images: {size(result.bytes_before)} before, {size(result.bytes_after)} now")
    print(f"log: {log}")
