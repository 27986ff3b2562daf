"""The automatic split: by content and seed, folder by folder, with what looks the same on one side."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from dreamloom.train.data.dataset import Dataset, read_dataset
from dreamloom.train.data.split import hold_out


def draw(path: Path, seed: int, **changes: float) -> None:
    """Writes a picture of random smooth colors, somewhat brighter or smaller if asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(40, 200, (6, 6, 3)) * changes.get("brightness", 1.0)
    side = int(changes.get("side", 96))
    Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC).save(path)


def many(folder: Path, count: int, first: int = 0) -> Path:
    for number in range(first, first + count):
        draw(folder / f"a thing_{number}.png", number)
    return folder


def split(root: Path, share: float, seed: int = 0) -> tuple[Dataset, set[str]]:
    rest, held = hold_out(read_dataset(root, 64, 16, 2), share, seed)
    names = {sample.name for sample in held.samples} if held else set()
    assert names.isdisjoint(sample.name for sample in rest.samples)
    return rest, names


def bytes_of(root: Path, names: set[str]) -> set[bytes]:
    return {(root / name).read_bytes() for name in names}


def test_each_folder_holds_out_its_share_so_that_the_ratio_stays(tmp_path: Path) -> None:
    many(tmp_path / "a", 60)
    many(tmp_path / "b", 20, first=100)
    many(tmp_path / "c", 8, first=200)
    rest, held = split(tmp_path, 0.1)
    counts = {folder: sum(name.startswith(folder) for name in held) for folder in "abc"}
    assert 5 <= counts["a"] <= 7 and counts["b"] == 2 and counts["c"] == 0
    assert len(rest.samples) + len(held) == 88
    assert any(f"{len(held)} of 88 images are held out" in note for note in rest.notes)


def test_the_seed_alone_makes_another_split(tmp_path: Path) -> None:
    many(tmp_path, 40)
    assert split(tmp_path, 0.25)[1] == split(tmp_path, 0.25)[1] != split(tmp_path, 0.25, seed=1)[1]


def test_chance_moves_a_folders_share_by_a_quarter_at_most(tmp_path: Path) -> None:
    data = read_dataset(many(tmp_path, 20), 64, 16, 2)
    held = [hold_out(data, 0.2, seed)[1] for seed in range(12)]
    assert {len(each.samples) if each else 0 for each in held} == {4, 5}
    assert [len(each.samples) for each in (hold_out(data, 0.05, seed)[1] for seed in range(3)) if each] == [1, 1, 1]


def test_a_folder_of_copies_holds_out_something(tmp_path: Path) -> None:
    for number in range(10):
        draw(tmp_path / f"{number}.png", number // 2, brightness=1.0 + number % 2 / 50)
    assert len(split(tmp_path, 0.1)[1]) == 2


def test_look_alikes_that_are_renamed_stay_on_their_side(tmp_path: Path) -> None:
    names = [(number, brightness) for number in range(12) for brightness in (1.0, 1.02)]
    for turn, order in (("before", names), ("after", names[::-1])):
        for place, (number, brightness) in enumerate(order):
            draw(tmp_path / turn / f"{place:02d}.png", number, brightness=brightness)
    before, after = (bytes_of(root, split(root, 0.25)[1]) for root in (tmp_path / "before", tmp_path / "after"))
    assert before == after != set()


def test_a_renamed_image_stays_on_its_side(tmp_path: Path) -> None:
    many(tmp_path / "before", 30)
    (tmp_path / "after").mkdir()
    for number, file in enumerate(sorted((tmp_path / "before").iterdir(), reverse=True)):
        shutil.copy(file, tmp_path / "after" / f"renamed {number}.png")
    before, after = (bytes_of(root, split(root, 0.2)[1]) for root in (tmp_path / "before", tmp_path / "after"))
    assert before == after != set()


def test_added_images_move_no_other_one(tmp_path: Path) -> None:
    many(tmp_path, 40)
    before = {sample.name for sample in split(tmp_path, 0.2)[0].samples}, split(tmp_path, 0.2)[1]
    many(tmp_path, 15, first=1000)
    rest, held = split(tmp_path, 0.2)
    assert before[0] <= {sample.name for sample in rest.samples} and before[1] <= held


def test_what_looks_the_same_is_on_one_side(tmp_path: Path) -> None:
    for number in range(30):
        draw(tmp_path / "a" / f"{number}.png", number)
        draw(tmp_path / "b" / f"{number}-small.png", number, side=64)
        draw(tmp_path / "a" / f"{number}-bright.png", number, brightness=1.03)
        shutil.copy(tmp_path / "a" / f"{number}.png", tmp_path / "b" / f"{number}.png")
    _, held = split(tmp_path, 0.25)
    subjects = {Path(name).stem.partition("-")[0] for name in held}
    assert 0 < len(subjects) < 30 and len(held) == 4 * len(subjects)


def test_drawings_in_other_colors_are_not_the_same(tmp_path: Path) -> None:
    """The perceptual hash alone would make one image of them, and hold out none."""
    for place in range(6):
        for color in ("red", "green", "blue", "gold"):
            image = Image.new("RGB", (64, 64), "white")
            image.paste(color, (4 * place, 8, 32 + 4 * place, 40))
            image.save(tmp_path / f"{color} {place}.png")
    assert 2 <= len(split(tmp_path, 0.2)[1]) <= 8


def test_a_burst_that_is_most_of_a_folder_is_trained_on(tmp_path: Path) -> None:
    for number in range(30):
        draw(tmp_path / f"burst {number}.png", 7, side=80 + number)
    many(tmp_path, 20)
    assert all("burst" not in name for name in split(tmp_path, 0.1)[1]) and split(tmp_path, 0.1)[1]
