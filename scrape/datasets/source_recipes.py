"""Recipes of parts that are made from files. A file's time asks for its hash; only its content asks for the work.

A recipe knows files by name, size and time, which is quick. Beside it, a part stores the recipe that knows them by
their bytes. Where the first differs, the second is compared; if it is the same, the part keeps the recipe that it has.
So `touch`, a copy or a restored backup make nothing anew.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dreamloom.base.files.file_index import WholeFile, content_hashes
from dreamloom.base.stage import StageConfig, recipe
from dreamloom.scrape.collection import Collection, Table

VERSION = 3
"""Raised when ingest starts to make other rows from the same files."""


class FileVersion(NamedTuple):
    """Files as they were when they were listed, and what else a row or a part is made from."""

    files: tuple[Path, ...]
    stat: str
    """Name, size and modification time of each."""
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        """Returns what changes when the files do, or what else there is."""
        return f"{self.before}{self.stat}{self.after}"

    @property
    def exists(self) -> bool:
        """Whether the last of the files existed."""
        return not self.stat.endswith(_MISSING)


def file_version(*files: Path, before: str = "", after: str = "") -> FileVersion:
    """Returns the version of files as they are now; a file that does not exist is "missing".

    Args:
        files: the files.
        before: what else counts, in front of the files.
        after: the same, behind them.
    """
    return FileVersion(files, "|".join(map(_stat, files)), before, after)


MadeFrom = Mapping[str, Sequence[FileVersion]]
"""Part → the files that it is made from."""


class SourceRecipes(dict[str, str]):
    """Part → recipe, and what each part is made from.

    Args:
        collection: the collection that has the parts, or will have.
        table: the table of the parts.
        stage: name of the stage.
        config: config of the stage.
        made_from: what each part is made from; or a function from part to that, which is called where it is looked at.
        by_stat: part → the recipe that knows files by name, size and time, where `made_from` is a function.
    """

    def __init__(
        self,
        collection: Collection,
        table: Table,
        stage: str,
        config: StageConfig,
        made_from: MadeFrom | Callable[[str], Sequence[FileVersion]],
        by_stat: Mapping[str, str] | None = None,
    ) -> None:
        self._stage, self._config = stage, config
        self._made_from = made_from if callable(made_from) else made_from.__getitem__
        if not callable(made_from):
            by_stat = {part: stat_recipe(stage, config, versions) for part, versions in made_from.items()}
        assert by_stat is not None
        super().__init__({part: self._recipe(collection, table, part, each) for part, each in by_stat.items()})

    def by_content(self, part: str) -> str | None:
        """Returns the recipe that knows a part's files by their bytes; None where a file is not as it was listed."""
        versions = self._made_from(part)
        if any(_changed(version) for version in versions):
            return None
        files = list(dict.fromkeys(file for version in versions for file in version.files))
        hashes = dict(zip(files, content_hashes([WholeFile(file) for file in files]), strict=True))
        contents = [
            (version.before, [(file.name, hashes[file]) for file in version.files], version.after)
            for version in versions
        ]
        return recipe(f"{self._stage} by content", VERSION, self._config, map(repr, contents))

    def _recipe(self, collection: Collection, table: Table, part: str, by_stat: str) -> str:
        stored = collection.recipe(table, part)
        if stored is None or stored == by_stat:
            return by_stat
        by_content = collection.content_recipe(table, part)
        return stored if by_content is not None and by_content == self.by_content(part) else by_stat


def stat_recipe(stage: str, config: StageConfig, versions: Sequence[FileVersion]) -> str:
    """Returns the recipe of a part that knows its files by name, size and time."""
    return recipe(stage, VERSION, config, map(str, versions))


_MISSING = " missing"


def _stat(file: Path) -> str:
    try:
        status = os.stat(file)
    except OSError:
        return f"{file.name}{_MISSING}"
    return f"{file.name} {status.st_size} {status.st_mtime_ns}"


def _changed(version: FileVersion) -> bool:
    return file_version(*version.files).stat != version.stat
