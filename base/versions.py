"""Versions of what dreamloom writes and reads again, so that releases get along with one another's files.

A format has a version, "major.minor", and every file of it says its own.

- **Minor** is raised when something is added: a key with a default, a column that may be null. A reader ignores what
  it does not know, so an older release reads the files of a newer one, and the other way round.
- **Major** is raised when something changes its name or its meaning. An older release refuses the file in one
  sentence; a newer one migrates what it reads, as `renamed` does.

A version is no part of a recipe or a digest: it says how to read a file, not what is in it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit_json

FIRST = "0.1"
"""The version of files that say none: releases before 0.2 wrote it nowhere."""


@dataclass(frozen=True)
class Format:
    """A kind of file that dreamloom writes for itself and for other releases."""

    name: str
    version: str
    """Of the files that this release writes."""

    def check(self, version: object, where: Path) -> str:
        """Checks that this release can read a file.

        Args:
            version: what the file says; None: it says nothing.

        Returns:
            The file's version, for migrations.

        Raises:
            UserError: the file is of a newer major version, or says something that is no version.
        """
        said = FIRST if version is None else str(version)
        if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", said):
            raise UserError(f"{where} says that its version is {said[:40]!r}; it has to be one such as {self.version}.")
        if _numbers(said)[0] > _numbers(self.version)[0]:
            raise UserError(
                f"{where} has version {said} of the {self.name} format, and this dreamloom reads versions up to "
                f"{_numbers(self.version)[0]}; update dreamloom."
            )
        return said

    def write_json(self, file: Path, values: Mapping[str, Any]) -> None:
        """Commits a JSON object with the format's version as its first key, `schema`."""
        commit_json(file, {"schema": self.version, **values})

    def read_json(self, file: Path) -> dict[str, Any]:
        """Reads a JSON object.

        Raises:
            OSError: the file can't be read.
            ValueError: it is no JSON object.
            UserError: a newer release wrote it in another way.
        """
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        self.check(values.get("schema"), file)
        return values

    def is_newer(self, version: str) -> bool:
        """Whether a version that was checked is newer than this release's: the file may hold more than it knows."""
        return _numbers(version) > _numbers(self.version)


TABLES = Format("collection", "1.0")
"""The parquet files of collections, and the manifest of a training folder."""
RUN = Format("run", "1.0")
"""config.json, summary.json and evaluation.json of a training run, and the evaluation beside a report."""
EXPORT = Format("export", "1.0")
"""dreamloom.json of an exported model."""
PROJECT = Format("project", "1.0")
"""project.yaml."""


def known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a dataclass or a config has fields for; others were added by a newer minor version."""
    if is_dataclass(kind):
        names = {field.name for field in fields(kind)}
    else:
        assert issubclass(kind, BaseModel)
        names = set(kind.model_fields)
    return {name: value for name, value in values.items() if name in names}


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Values under the names that they have now; one that has its new name already stays.

    Args:
        names: old name → new name.
    """
    return {names.get(name, name): value for name, value in values.items() if names.get(name) not in values}


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor or 0)
