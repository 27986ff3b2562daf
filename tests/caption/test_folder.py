"""A plain folder is captioned beside its images, in a table or in a new folder; nothing of it is changed."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.caption.captioners.blip import Blip
from dreamloom.caption.config import CaptionConfig, EditConfig
from dreamloom.caption.folder import CAPTIONED_ALREADY, caption_folder
from dreamloom.caption.sidecar import read_caption

CLIP = ClipConfig(model=str(Path(__file__).parents[2] / "demo" / "models" / "clip"))
MakeConfig = Callable[..., CaptionConfig]
Draw = Callable[[int], Image.Image]


@pytest.fixture
def mine(tmp_path: Path, draw_image: Draw) -> Path:
    """Two images without captions, two with, a broken one, a blank sidecar, two of one stem, a control file's."""
    folder = tmp_path / "mine"
    (folder / "inner").mkdir(parents=True)
    names = ["1.png", "inner/2.png", "a red car_1.png", "4.png", "blank.png", "twin.png", "twin.jpg", "multiply.png"]
    for number, name in enumerate(names):
        draw_image(number).save(folder / name)
    (folder / "4.txt").write_text("a person wrote this")
    (folder / "blank.txt").write_text("")
    (folder / "broken.png").write_bytes((folder / "1.png").read_bytes()[:60])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_texts_are_written_beside_the_images_and_never_over_one(
    mine: Path, tiny: str, config_of: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(mine)
    summary = caption_folder(mine, config_of(tiny, edit=EditConfig(prefix="photo of")))
    after = contents(mine)
    assert {name: data for name, data in after.items() if name in before} == before
    made = ["1.txt", "inner/2.txt", "multiply.png.txt", "twin.jpg.txt", "twin.png.txt"]
    assert sorted(after.keys() - before.keys()) == made
    assert all(after[name].startswith(b"photo of ") for name in made)
    assert read_caption(mine / "twin.jpg").text == after["twin.jpg.txt"].decode()
    assert (summary.rows, summary.kept, summary.marked) == (9, 7, {CAPTIONED_ALREADY: 2})
    assert sorted(summary.dropped.values()) == [1, 1]

    monkeypatch.delattr(Blip, "generate")  # a second run asks no model but for what it could not caption
    again = caption_folder(mine, config_of(tiny))
    assert (contents(mine), again.kept) == (after, 7)


def test_an_image_that_lacks_only_its_end_is_captioned_as_ingest_takes_it(
    tmp_path: Path, tiny: str, config_of: MakeConfig, draw_image: Draw
) -> None:
    draw_image(1).save(tmp_path / "1.jpg")
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:-2])
    assert caption_folder(tmp_path, config_of(tiny)).kept == 1


def test_a_folder_that_may_not_be_written_into_is_told_before_a_model_works(
    mine: Path, tiny: str, config_of: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda place, mode: False)  # root may write anywhere
    with pytest.raises(UserError, match=r"inner may not be written into|mine may not be written into"):
        caption_folder(mine, config_of(tiny))


def test_a_killed_run_goes_on_from_its_journal(
    mine: Path, tiny: str, config_of: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    generate = Blip.generate

    def dying(self: Any, images: Any, keys: Sequence[str]) -> Any:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.extend(keys)
        return generate(self, images, keys)

    def counted(self: Any, images: Any, keys: Sequence[str]) -> Any:
        asked.extend(keys)
        return generate(self, images, keys)

    monkeypatch.setattr(Blip, "generate", dying)
    table, config = mine.parent / "captions.csv", config_of(tiny, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        caption_folder(mine, config, table)
    assert not table.exists()
    monkeypatch.setattr(Blip, "generate", generate)
    whole = mine.parent / "whole.csv"
    caption_folder(mine, config, whole)
    monkeypatch.setattr(Blip, "generate", counted)
    caption_folder(mine, config, table)
    assert len(asked) == len(set(asked)) == 6
    assert table.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in mine.parent.iterdir()) == ["captions.csv", "mine", "whole.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_says_who_wrote_what(mine: Path, tiny: str, config_of: MakeConfig, suffix: str) -> None:
    before, table = contents(mine), mine.parent / f"captions{suffix}"
    summary = caption_folder(mine, config_of(tiny), table)
    assert contents(mine) == before
    rows: list[dict[str, Any]]
    if suffix == ".csv":
        rows = list(csv.DictReader(table.open()))
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in table.read_text().splitlines()]
    else:
        rows = pq.read_table(table).to_pylist()
    by_file = {row["file_name"]: row for row in rows}
    assert len(by_file) == summary.kept == 8  # also that of the blank sidecar
    assert (by_file["mine/4.png"]["text"], by_file["mine/4.png"]["kind"]) == ("a person wrote this", "human")
    assert by_file["mine/inner/2.png"]["kind"] == "model"
    with pytest.raises(UserError, match="exists, and stays as it is"):
        caption_folder(mine, config_of(tiny), table)


def test_a_new_folder_has_the_captions_in_its_names(mine: Path, tiny: str, config_of: MakeConfig) -> None:
    before, new = contents(mine), mine.parent / "new"
    (mine / "multiply.txt").write_text("2")
    summary = caption_folder(mine, config_of(tiny), new)
    (mine / "multiply.txt").unlink()
    assert contents(mine) == before
    images = [path for path in new.rglob("*") if path.suffix in (".png", ".jpg")]
    assert len(images) == summary.kept == 8
    assert (new / "a person wrote this.png").read_bytes() == before["4.png"]
    assert (new / "multiply.txt").read_text() == "2"
    with pytest.raises(UserError, match="lies in"):
        caption_folder(mine, config_of(tiny), mine / "new")


def test_captions_below_the_floor_are_counted_as_doubtful(mine: Path, tiny: str, config_of: MakeConfig) -> None:
    """Zero is a floor, too."""
    table = mine.parent / "captions.jsonl"
    summary = caption_folder(mine, config_of(tiny, clip=CLIP, doubtful_below=0.0), table)
    cosines = [json.loads(line)["similarity"] for line in table.read_text().splitlines()]
    below = sum(cosine is not None and cosine < 0 for cosine in cosines)
    assert below
    assert summary.marked == {CAPTIONED_ALREADY: 2, "doubtful": below}


def test_a_name_that_leaves_no_room_for_a_text_costs_itself(tmp_path: Path, tiny: str, config_of: MakeConfig) -> None:
    """Of two images of one stem each needs x.jpg.txt, which may be longer than file systems allow."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for suffix in (".png", ".jpg"):
        Image.new("RGB", (32, 32)).save(folder / f"{'é' * 125}{suffix}")
    summary = caption_folder(folder, config_of(tiny))
    assert (summary.kept, summary.dropped) == (0, {"name too long for a .txt beside it": 2})
    assert len(list(folder.iterdir())) == 2
