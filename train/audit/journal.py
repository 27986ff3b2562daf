"""What an audit has measured so far: a file of lines in its folder, so that a killed audit goes on."""

import json
from pathlib import Path
from typing import Any

from dreamloom.base.files.atomic import make_folder


class Journal:
    """Results by key, each written as soon as it is known.

    Args:
        file: where they lie; None: in memory, for this process.
    """

    def __init__(self, file: Path | None) -> None:
        """Reads what is there; a line that a kill cut off is measured again."""
        self.file = file
        self.results: dict[str, dict[str, Any]] = {}
        if file is not None and file.exists():
            for line in file.read_bytes().split(b"\n"):
                try:
                    entry = json.loads(line)
                    self.results[entry["key"]] = entry["result"]
                except (ValueError, KeyError, TypeError):
                    continue

    def put(self, key: str, result: dict[str, Any]) -> None:
        """Adds a result."""
        self.results[key] = result
        if self.file is not None:
            make_folder(self.file.parent)
            with self.file.open("ab") as file:  # a new line first, as the last one may be cut off
                file.write(b"\n" + json.dumps({"key": key, "result": result}).encode())
