"""The finished rows of an unfinished part: one line of JSON per row, so that a kill loses only requests under way."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from dreamloom.scrape.collection.schema import Row


class Journal:
    """The finished rows of one part, by key. Used as `with Journal(path, plan) as journal`.

    A journal that was started with another plan is started anew. A line survives a kill as soon as `add` returns; an
    incomplete last line is ignored.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        """Stores the arguments; entering the context opens the file.

        Args:
            path: the file of the journal.
            plan: everything that the rows depend on; its JSON is the first line.
        """
        self._path = path
        self._header = json.dumps(plan, sort_keys=True).encode() + b"\n"
        self.rows: dict[str, Row] = {}

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        valid_bytes = self._load(self._path.read_bytes())
        os.ftruncate(self._file, valid_bytes)
        os.lseek(self._file, 0, os.SEEK_END)
        if not valid_bytes:
            os.write(self._file, self._header)
        return self

    def _load(self, content: bytes) -> int:
        """Loads the rows of an existing journal. Returns how many of its bytes are valid."""
        lines = content.splitlines(keepends=True)
        if not lines or lines[0] != self._header:
            return 0
        valid_bytes = len(lines[0])
        for line in lines[1:]:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if row is None:
                break
            self.rows[row["key"]] = row
            valid_bytes += len(line)
        return valid_bytes

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def add(self, row: Row) -> None:
        """Appends a finished row."""
        self.rows[row["key"]] = row
        os.write(self._file, json.dumps(row).encode() + b"\n")

    def remove(self) -> None:
        """Deletes the journal, once its part is committed."""
        self._path.unlink(missing_ok=True)


def read_plan(path: Path) -> dict[str, Any]:
    """Reads the plan of a journal; empty where the file is missing or unreadable."""
    try:
        with path.open("rb") as file:
            return dict(json.loads(file.readline()))
    except (OSError, ValueError, TypeError):
        return {}
