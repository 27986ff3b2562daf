"""What stands under the images of a contact sheet."""

import tarfile
from pathlib import Path

from PIL import Image

from dreamloom.base.images.pixels import decode
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.caption.sidecar import read_caption
from dreamloom.flows.report.contents import images_of_collection, images_of_training_folder
from dreamloom.scrape.collection import CaptionKind, Collection, Table
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder


def test_a_doubtful_caption_says_so(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for side in (20, 30, 40):
        Image.new("RGB", (side, side)).save(tmp_path / "mine" / f"a thing of {side}.png")
    collection = Collection(tmp_path / "collection")
    ingest_folder(collection, FolderConfig(path=tmp_path / "mine"), read_caption)
    assert [text for _, text in images_of_collection(collection)] == ["a thing of 20", "a thing of 30", "a thing of 40"]
    keys = collection.read(Table.RECORDS)["key"].to_pylist()
    rows = [
        {"key": key, "caption": f"caption {number}", "kind": CaptionKind.MODEL, "doubtful": doubtful}
        for number, (key, doubtful) in enumerate(zip(keys, (None, True, False), strict=True))
    ]
    collection.write(Table.CAPTIONS, "00000", rows, recipe="r", config=StageConfig(), summary=Summary(rows=3, kept=3))
    assert [text for _, text in images_of_collection(collection)] == ["caption 0", "doubtful: caption 1", "caption 2"]


def test_images_in_shards_are_shown_too(tmp_path: Path) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "a thing.png")
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "0.tar", "w") as tar:
        tar.add(tmp_path / "a thing.png", "a thing.png")
    ((image, caption),) = images_of_training_folder(tmp_path / "set")
    assert caption == "a thing" and decode(image).size == (20, 30)
