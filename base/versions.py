"""Versions of the file formats that dreamloom writes and reads, so that releases can read each other's files.

A format has a version, "major.minor", which each of its files names.

- **Raise minor** for an addition: a key with a default, a nullable column. Readers ignore unknown keys and columns, so
  an older release can read files of a newer one, and the other way round.
- **Raise major** when something is renamed or changes its meaning. An older release refuses the file in one sentence; a
  newer one migrates what it reads (`rename_keys`).

A version is not part of any recipe or digest: it tells how to read a file, not what the file contains.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_json

FIRST = "0.1"
"""Version of files that name none: releases before 0.2 did not write it."""
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading a file of JSON, and taking values out of it, raises if it is gone, damaged or holds something else."""


@dataclass(frozen=True)
class Format:
    """A file format with a version."""

    name: str
    """Name of the format, for error messages."""
    version: str
    """Version that this release writes."""

    def check(self, version: object, where: Path) -> str:
        """Checks that this release can read a file.

        Args:
            version: the version that the file names; None if it names none.
            where: the file, for error messages.

        Returns:
            The file's version, for migrations.

        Raises:
            UserError: the file has a newer major version, or names something that is not a version.
        """
        text = FIRST if version is None else str(version)
        if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text):
            raise UserError(f"{where} has the version {text[:40]!r}; write a version such as {self.version}.")
        if _numbers(text)[0] > _numbers(self.version)[0]:
            raise UserError(
                f"{where} has version {text} of the {self.name} format, and this dreamloom reads versions up to "
                f"{_numbers(self.version)[0]}; update dreamloom."
            )
        return text

    def write_json(self, file: Path, values: Mapping[str, Any]) -> None:
        """Writes a JSON object atomically, with the format's version as its first key, `schema`."""
        commit_json(file, {"schema": self.version, **values})

    def read_json(self, file: Path) -> dict[str, Any]:
        """Reads a JSON object.

        Raises:
            OSError: the file can't be read.
            ValueError: it is no JSON object.
            UserError: it has a newer major version.
        """
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        self.check(values.get("schema"), file)
        return values

    def is_newer(self, version: str) -> bool:
        """Tells whether a version is newer than this release's, so that a file of it may have unknown keys."""
        return _numbers(version) > _numbers(self.version)


TABLES = Format("collection", "1.1")
"""The parquet files of collections, and the manifest of a training folder. 1.1 added what images show."""
RUN = Format("run", "1.2")
"""config.json, summary.json and evaluation.json of a training run, state.json of its checkpoints, the evaluation beside
a report, concepts.json of held-out images, and audit.json. 1.1 added what each concept lost, and checksums;
1.2 when a run began, on which images, and which run it goes on from."""
EXPORT = Format("export", "1.0")
"""dreamloom.json of an exported model."""
PROJECT = Format("project", "1.0")
"""project.yaml."""


def known_fields(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values for which a dataclass or config has fields; a newer minor version may have added others."""
    if is_dataclass(kind):
        names = {field.name for field in fields(kind)}
    else:
        assert issubclass(kind, BaseModel)
        names = set(kind.model_fields)
    return {name: value for name, value in values.items() if name in names}


def rename_keys(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Renames the keys of a mapping. Where both the old and the new key are present, the new one wins.

    Args:
        values: the mapping, which is not changed.
        names: old key → new key.
    """
    return {names.get(name, name): value for name, value in values.items() if names.get(name) not in values}


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor or 0)
