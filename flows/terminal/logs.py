"""What dreamloom logs: to a file beside what it makes, and to the terminal.

Modules log to `logging.getLogger(__name__)`, below `dreamloom`. Other programs' loggers are left alone, so what they
say is in neither place. Prefect shows the same lines where PREFECT_LOGGING_EXTRA_LOGGERS names dreamloom.
"""

import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dreamloom.base.errors import UserError, error_line, leaves
from dreamloom.base.files.atomic import refuse_file
from dreamloom.base.text import printable

if TYPE_CHECKING:
    from pydantic import BaseModel

_DREAMLOOM = logging.getLogger("dreamloom")
_log = logging.getLogger(__name__)

PRINTED = {"printed": True}
"""Pass it as `extra` of a line that is printed too, so that a terminal does not show it twice."""
_HEADING = {"heading": True}

_PACKAGES = (
    *("torch", "diffusers", "transformers", "peft", "accelerate", "open_clip_torch", "numpy", "pillow"),
    *("pyarrow", "duckdb", "aiohttp", "img2dataset", "prefect", "pydantic"),
)
"""Distributions whose versions a log begins with, where they are installed."""


@contextmanager
def log_to_terminal(verbose: bool) -> Iterator[None]:
    """Shows warnings on stderr during the block, or everything from DEBUG on.

    Nothing goes on to the root logger meanwhile: some libraries give it a handler, which would show all lines twice.
    """
    handler = _TerminalHandler(logging.DEBUG if verbose else logging.WARNING)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s" if verbose else "%(message)s"))
    propagate, _DREAMLOOM.propagate = _DREAMLOOM.propagate, False
    with _attached(handler, logging.DEBUG if verbose else logging.INFO):
        try:
            yield
        finally:
            _DREAMLOOM.propagate = propagate


@contextmanager
def log_to_file(folder: Path | None, config: "BaseModel | None" = None) -> Iterator[None]:
    """Writes what is logged during the block to `folder`/<time>.log, with the versions and the machine at its head.

    The file is made with the first line below the head, so that a command which refuses its input leaves nothing. An
    exception that ends the block is its last line, with the traceback unless it is the user's to mend.

    Args:
        folder: made where it is missing; None: nothing is written.
        config: what is to be done, which stands in the head too.

    Raises:
        UserError: a file is where the folder, or one above it, is to be.
    """
    if folder is None:
        yield
        return
    refuse_file(folder)
    handler = _FileHandler(folder / time.strftime("%Y-%m-%d_%H-%M-%S.log"))
    with _warnings_shown(), _attached(handler, logging.INFO):
        _log_head(config)
        try:
            yield
        except BaseException as error:
            handler.write_ending(error)
            raise


@contextmanager
def _attached(handler: logging.Handler, level: int) -> Iterator[None]:
    """Adds a handler for the duration of the block, and lets records from `level` on pass, if they did not before."""
    before = _DREAMLOOM.level
    _DREAMLOOM.addHandler(handler)
    _DREAMLOOM.setLevel(min(before or level, level))
    try:
        yield
    finally:
        _DREAMLOOM.setLevel(before)
        _DREAMLOOM.removeHandler(handler)
        handler.close()


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Without a handler Python shows warnings on stderr; with only that of a file it would not."""
    if _DREAMLOOM.hasHandlers():
        yield
        return
    handler = _TerminalHandler(logging.WARNING)
    handler.setFormatter(_Formatter("%(message)s"))
    with _attached(handler, logging.INFO):
        yield


class _TerminalHandler(logging.Handler):
    """Writes to stderr as it is at that moment, which is above the bars where there are some."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "printed", False):
            print(self.format(record), file=sys.stderr, flush=True)


class _FileHandler(logging.FileHandler):
    """A file that is opened with the first line below its head."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf-8", delay=True)
        self.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        self._head: list[logging.LogRecord] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        head = self._head
        if head is not None and getattr(record, "heading", False):
            head.append(record)
            return
        if head is not None:
            Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
            self._head = None
            for line in head:
                super().emit(line)
        super().emit(record)

    def write_ending(self, error: BaseException) -> None:
        """Writes why the block ended; nothing where the user is to mend it and nothing was done yet."""
        errors = leaves(error)
        is_expected = all(isinstance(each, UserError | KeyboardInterrupt) for each in errors)
        if is_expected and self._head is not None:
            return
        message = "\n".join(map(error_line, errors))
        traceback = None if is_expected else (type(error), error, error.__traceback__)
        self.handle(logging.LogRecord(_log.name, logging.ERROR, __file__, 0, "ended: %s", (message,), traceback))


class _Formatter(logging.Formatter):
    """Formats a record without what a terminal would obey, as texts of the web may be in it."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def _log_head(config: "BaseModel | None") -> None:
    versions = ", ".join(f"{name} {version}" for name in _PACKAGES if (version := _version(name)))
    _log.info("dreamloom %s, Python %s, %s", _version("dreamloom"), platform.python_version(), versions, extra=_HEADING)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{platform.platform()}, {os.cpu_count()} CPUs, {memory:.1f} GiB of memory"
    _log.info("%s", machine, extra=_HEADING)
    if config is not None:
        import yaml

        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        _log.info("%s:\n%s", type(config).__name__, text.rstrip(), extra=_HEADING)


def _version(distribution: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
