"""The demo's folders: readable by the rules of the sets they look like, made whole, and made once."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamloom.base.images.pixels import decode
from dreamloom.demo.folders import (
    CONCEPT,
    CONCEPT_BACKGROUNDS,
    CONCEPT_COLORS,
    make_coco,
    make_concept,
    make_ffhq,
    make_imagenet,
)
from dreamloom.demo.world import STYLES, Scene, parse


def test_the_users_images_are_named_by_caption_as_everydream_has_it(tmp_path: Path) -> None:
    make_concept(tmp_path / "zorps", 45)
    scenes = []
    for path in (tmp_path / "zorps").iterdir():
        scenes.append(parse(path.stem.partition("_")[0]))
        assert decode(path).size == (256, 256)
    assert len(scenes) == 45
    assert {t.shape for s in scenes for t in s.things} == {CONCEPT}
    kinds = Counter((s.things[0].color, s.background, s.style) for s in scenes)
    assert kinds == Counter(product(CONCEPT_COLORS, CONCEPT_BACKGROUNDS, STYLES))
    # No size goes with one color, background or style only: else the model would learn the two as one
    traits: list[Callable[[Scene], str]] = [lambda s: s.things[0].color, lambda s: s.background, lambda s: s.style]
    for trait in traits:
        assert len({(s.size, trait(s)) for s in scenes}) == 2 * len({trait(s) for s in scenes})


def test_ffhq_is_laid_out_as_nvidias(tmp_path: Path) -> None:
    make_ffhq(tmp_path / "ffhq", 30)
    entries = json.loads((tmp_path / "ffhq" / "ffhq-dataset-v2.json").read_text())
    assert list(entries) == [str(n) for n in range(30)]
    for number, entry in entries.items():
        thumbnail = entry["thumbnail"]
        assert thumbnail["file_path"] == f"thumbnails128x128/00000/{int(number):05d}.png"
        data = (tmp_path / "ffhq" / thumbnail["file_path"]).read_bytes()
        assert (len(data), hashlib.md5(data).hexdigest()) == (thumbnail["file_size"], thumbnail["file_md5"])
        assert list(decode(data).size) == thumbnail["pixel_size"]
        assert entry["category"] in ("training", "validation")
    licences = {entry["metadata"]["license"] for entry in entries.values()}
    assert {"Attribution License", "Attribution-NonCommercial License"} <= licences
    assert (tmp_path / "ffhq" / "thumbnails128x128" / "00000" / "LICENSE.txt").exists()


def test_coco_annotations_fit_the_images(tmp_path: Path) -> None:
    make_coco(tmp_path / "coco", 25)
    document = json.loads((tmp_path / "coco" / "annotations" / "captions_val2017.json").read_text())
    captions = Counter(a["image_id"] for a in document["annotations"])
    licences = {licence["id"] for licence in document["licenses"]}
    assert len(document["images"]) == len(captions) == 25
    assert set(captions.values()) == {5}
    for image in document["images"]:
        assert image["file_name"] == f"{image['id']:012d}.jpg"
        path = tmp_path / "coco" / "val2017" / image["file_name"]
        assert decode(path).size == (image["width"], image["height"])
        assert image["license"] in licences
    for annotation in document["annotations"]:
        parse(annotation["caption"].strip().removesuffix("."))


def test_imagenet_has_a_folder_a_synset_and_its_traps(tmp_path: Path) -> None:
    make_imagenet(tmp_path / "imagenet", 3)
    names = dict(
        line.split(" ", 1) for line in (tmp_path / "imagenet" / "LOC_synset_mapping.txt").read_text().splitlines()
    )
    train = tmp_path / "imagenet" / "ILSVRC" / "Data" / "CLS-LOC" / "train"
    assert {folder.name for folder in train.iterdir()} == set(names)
    kinds = Counter[tuple[str | None, str]]()
    for path in train.rglob("*.JPEG"):
        assert path.stem.startswith(f"{path.parent.name}_")
        with Image.open(path) as image:
            kinds[image.format, image.mode] += 1
    assert kinds == {("JPEG", "RGB"): 3 * len(names) - 2, ("PNG", "RGB"): 1, ("JPEG", "CMYK"): 1}


@pytest.mark.parametrize("make", [make_concept, make_ffhq, make_coco, make_imagenet])
def test_equal_each_time_and_never_touched_again(make: Callable[[Path, int], None], tmp_path: Path) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    make(tmp_path / "a", 4)
    make(tmp_path / "b", 4)
    made = content(tmp_path / "a")
    assert made == content(tmp_path / "b")
    (tmp_path / "a" / "mine.txt").write_text("mine")
    make(tmp_path / "a", 9)
    assert content(tmp_path / "a") == {**made, "mine.txt": b"mine"}


def test_killed_while_it_is_made_the_folder_is_there_whole_or_not_at_all(tmp_path: Path, crash: Any) -> None:
    script = f"""
from pathlib import Path
from typing import Any
from dreamloom.demo.folders import make_coco
make_coco(Path({str(tmp_path / "coco")!r}), 3)
"""
    assert crash.run(script, at=6)
    assert not (tmp_path / "coco").exists()
    assert not crash.run(script, at=10**6)
    assert len(list((tmp_path / "coco" / "val2017").iterdir())) == 3


def test_scenes_of_the_sets_differ(tmp_path: Path) -> None:
    make_coco(tmp_path / "coco", 12)
    images = [np.asarray(decode(p).resize((16, 16)), int) for p in sorted((tmp_path / "coco" / "val2017").iterdir())]
    assert min(np.abs(a - b).mean() for i, a in enumerate(images) for b in images[:i]) > 1
