"""What is finished of a part that is not: a line of JSON a row, so that a kill loses only what was under way."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

Row = dict[str, Any]


class Journal:
    """The finished rows of one part, by key. Used as `with Journal(path, plan) as journal`.

    A journal that another plan has begun is begun anew. Lines outlive a kill as soon as `add` returns; a line that was
    cut short is as if it had not been.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        """Args:
        plan: what the rows depend on; its JSON is the first line.
        """
        self._path = path
        self._first = json.dumps(plan, sort_keys=True).encode() + b"\n"
        self.rows: dict[str, Row] = {}

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        whole = self._read(self._path.read_bytes())
        os.ftruncate(self._file, whole)
        os.lseek(self._file, 0, os.SEEK_END)
        if not whole:
            os.write(self._file, self._first)
        return self

    def _read(self, written: bytes) -> int:
        """Takes over the rows of what is written. Returns how many bytes of it are good."""
        lines = written.splitlines(keepends=True)
        if not lines or lines[0] != self._first:
            return 0
        good = len(lines[0])
        for line in lines[1:]:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if row is None:
                break
            self.rows[row["key"]] = row
            good += len(line)
        return good

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def add(self, row: Row) -> None:
        """Notes that a row is finished."""
        self.rows[row["key"]] = row
        os.write(self._file, json.dumps(row).encode() + b"\n")

    def remove(self) -> None:
        """Ends the journal: its part is committed."""
        self._path.unlink(missing_ok=True)


def plan_of(path: Path) -> dict[str, Any]:
    """The plan that began a journal; empty where there is no journal, or none that can be read."""
    try:
        with path.open("rb") as written:
            return dict(json.loads(written.readline()))
    except (OSError, ValueError, TypeError):
        return {}
