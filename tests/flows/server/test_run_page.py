"""What the page of a run and its sheet of what was left out hold."""

from pathlib import Path
from typing import Any

from dreamloom.curate.manifest import manifest_path, read_manifest
from dreamloom.flows import api
from dreamloom.flows.report.report import score_charts
from dreamloom.flows.server.run_page import left_out_images


def test_what_was_left_out_is_shown_with_its_reason(small: Any) -> None:
    square = small.folder / "squares" / "a red square_(0).png"
    (small.folder / "circles" / "a red square_(9).png").write_bytes(square.read_bytes())
    api.run(small.load(), until="balance")
    project = small.load()
    manifest = read_manifest(manifest_path(project.workspace))
    ((file, text),) = left_out_images(project, manifest)
    assert isinstance(file, Path) and file.is_file() and text.startswith("duplicate: ")
    assert score_charts(manifest, {"aesthetic": 5}) == {}, "nothing was scored"
