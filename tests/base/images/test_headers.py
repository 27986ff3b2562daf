"""A header is read once, as long as nobody changes the file."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from dreamloom.base.images import headers as image_headers
from dreamloom.base.images.headers import read_headers
from dreamloom.base.images.pixels import read_header


@dataclass(frozen=True)
class Picture:
    """An image file."""

    file: str
    start: int = 0
    length: int | None = None

    def decodable(self) -> Path:
        """The file."""
        return Path(self.file)


def save(path: Path, size: tuple[int, int]) -> Picture:
    Image.new("RGBA", size, "teal").save(path)
    os.utime(path, ns=(10**18, 10**18))  # long ago
    return Picture(str(path))


def test_what_was_read_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    pictures = [save(tmp_path / "a.png", (64, 48)), save(tmp_path / "b.png", (32, 16))]
    (tmp_path / "c.png").write_text("no image")
    all_of = [*pictures, Picture(str(tmp_path / "c.png")), Picture(str(tmp_path / "missing.png"))]
    wanted = [*(read_header(picture.decodable()) for picture in pictures), "not_an_image", "missing_file"]
    assert read_headers(all_of, 2) == wanted
    monkeypatch.setattr(image_headers, "read_header", lambda source: pytest.fail(f"{source} is read again"))
    assert read_headers(pictures[::-1], 2) == wanted[1::-1]
    monkeypatch.undo()


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    for size in ((64, 48), (48, 64)):
        (header,) = read_headers([save(tmp_path / "a.png", size)], 1)
        assert not isinstance(header, str) and (header.width, header.height) == size
