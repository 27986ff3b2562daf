"""A .txt of several lines is several captions, one a line; in a project the lines stay together up to training."""

from pathlib import Path

from PIL import Image

from dreamloom.caption.sidecar import read_caption
from dreamloom.train.data.folder import read_training_folder


def test_each_line_is_a_caption_and_ingest_keeps_them_all(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("x", "y", "z"):
        Image.new("RGB", (40, 40)).save(folder / f"{name}.png")
    (folder / "x.txt").write_text("a red car\r\n\n  \na car, red\n")
    (folder / "y.caption").write_text("one\ncaption")
    (folder / "z.txt").write_text(" ")
    (read,) = read_training_folder(tmp_path)
    captions = {image.name: [each.caption for each in image.captions] for image in read.images}
    assert captions == {"own/x.png": ["a red car", "a car, red"], "own/y.png": ["one\ncaption"], "own/z.png": ["z"]}
    assert read_caption(folder / "x.png").text.split() == ["a", "red", "car", "a", "car,", "red"]
