"""Images come in the order of their paths, and a large folder is listed again only where a file of it changed."""

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from dreamloom.base.files.folder_names import FolderNames
from dreamloom.scrape.datasets import image_runs
from dreamloom.scrape.datasets.image_files import find_images
from dreamloom.scrape.datasets.image_runs import find_runs, list_images

LONG_AGO, FUTURE = 10**18, 4 * 10**18
FOLDERS = ("", "b", "b/a", "b.png", "d/c", ".hidden", "@eaDir")
NAMES = ("a.jpg", "b.jpg", "bb.png", "c.txt", "c.jpg", "d-masklabel.png", "e", ".x.jpg", "z.webp")


def listed(root: Path) -> list[Path]:
    return [
        run.folder / name for run in find_runs(root).runs for name in list_images(run.folder)[0][run.start : run.stop]
    ]


def change(root: Path, chance: random.Random) -> None:
    file = root / chance.choice(FOLDERS) / chance.choice(NAMES)
    if file.exists():
        file.unlink()
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\x89PNG\r\n\x1a\n" * chance.randint(1, 3))
        os.utime(file, ns=(LONG_AGO, LONG_AGO))


@pytest.mark.parametrize("seed", range(2))
def test_runs_are_the_images_that_a_listing_finds_whatever_changed_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(image_runs, "_MANY", 1)
    chance, root = random.Random(seed), tmp_path / "images"
    (root / "d").mkdir(parents=True)
    for _ in range(30):
        change(root, chance)
        (root / "always.png").touch()
        os.utime(root / "always.png", ns=(LONG_AGO, LONG_AGO))
        left_out = Counter[str]()
        found, runs = [path for path, _ in find_images(root, left_out)], find_runs(root)
        assert listed(root) == found
        assert (runs.count, runs.left_out) == (len(found), dict(left_out))
        assert runs.bytes == sum(path.stat().st_size for path in found)
        for part_rows in (1, 3, 100):
            parts = runs.parts(part_rows).values()
            assert [run.stop - run.start for part in parts for run in part if run.stop <= run.start] == []
            assert [sum(run.stop - run.start for run in part) for part in parts] == [
                len(found[start : start + part_rows]) for start in range(0, len(found), part_rows)
            ]


def test_one_image_more_has_no_other_folder_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_runs, "_MANY", 1)
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, ns=(LONG_AGO, LONG_AGO))
    before = find_runs(tmp_path)
    asked: list[Path] = []

    def listing(folder: Path, left_out: Counter[str]) -> tuple[list[str], FolderNames]:
        asked.append(folder)
        return list_images(folder, left_out)

    monkeypatch.setattr(image_runs, "list_images", listing)
    assert find_runs(tmp_path) == before and asked == []
    (tmp_path / "b" / "2.png").write_bytes(b"")
    assert find_runs(tmp_path).count == 4 and asked == [tmp_path / "b"]
    os.utime(tmp_path / "b" / "2.png", ns=(FUTURE, FUTURE))
    assert [run.state is None for run in find_runs(tmp_path).runs] == [False, True]
