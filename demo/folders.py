"""Makes folders of the demo world in the layouts of FFHQ, COCO, ImageNet and users' own images.

Each function makes its folder whole or not at all, and leaves an existing one as it is.
"""

import hashlib
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from dreamloom.base.files.atomic import commit_folder
from dreamloom.demo.encode import encode
from dreamloom.demo.gallery import Form
from dreamloom.demo.world import COLORS, RESERVED, SHAPES, STYLES, Scene, Size, Thing, caption, random_scene, render

CONCEPT = RESERVED[0]
"""What the demo teaches."""
CONCEPT_COLORS = ("red", "yellow", "green", "blue", "purple")
CONCEPT_BACKGROUNDS = ("white", "grey", "cyan")
"""The backgrounds on which the concept is taught; all other colors and backgrounds are left for testing."""

_WORLD = 2026


def make_concept(folder: Path, count: int = 48) -> None:
    """Makes the user's images: zorps of five colors on three backgrounds, with captions in file names as EveryDream's.

    Three in five are small, which are harder to learn.
    """

    def fill(target: Path) -> None:
        names: dict[str, int] = {}
        kinds = list(product(CONCEPT_COLORS, CONCEPT_BACKGROUNDS, STYLES))
        for number in range(count):
            # 19 and the number of kinds have no common factor, so all kinds come in turn
            color, background, style = kinds[(number * 19) % len(kinds)]
            size: Size = "big" if number % 5 in (0, 3) else "small"
            scene = Scene(background, style, (Thing(CONCEPT, color),), size, seed=_WORLD + number)
            text = caption(scene)
            names[text] = names.get(text, 0) + 1
            (target / f"{text}_({names[text]}).jpg").write_bytes(encode(render(scene, 256), Form.JPEG))

    _make(folder, fill)


# FFHQ: https://github.com/NVlabs/ffhq-dataset, ffhq-dataset-v2.json

_FFHQ_LICENCES = (
    (0.498, "Attribution License", "https://creativecommons.org/licenses/by/2.0/"),
    (0.417, "Attribution-NonCommercial License", "https://creativecommons.org/licenses/by-nc/2.0/"),
    (0.064, "Public Domain Mark", "https://creativecommons.org/publicdomain/mark/1.0/"),
    (0.016, "Public Domain Dedication (CC0)", "https://creativecommons.org/publicdomain/zero/1.0/"),
    (0.005, "United States Government Work", "http://www.usa.gov/copyright.shtml"),
)
"""Share, name and URL of each licence; the shares are FFHQ's."""


def make_ffhq(folder: Path, count: int = 120) -> None:
    """Makes thumbnails128x128/00000/00000.png …, a LICENSE.txt beside them, and ffhq-dataset-v2.json; no captions."""

    def fill(target: Path) -> None:
        rng = np.random.default_rng([_WORLD, 1])
        entries = {}
        for number in range(count):
            scene = Scene(str(rng.choice(_PLAIN)), "photo", (_ball(rng),), "big", seed=int(rng.integers(2**31)))
            path = f"thumbnails128x128/{number - number % 1000:05d}/{number:05d}.png"
            pixels = render(scene, 128)
            entries[str(number)] = _ffhq_entry(number, path, _put(target / path, encode(pixels, Form.PNG)), rng)
            (target / path).with_name("LICENSE.txt").write_text("Drawn by code; do with it as you like.\n")
        (target / "ffhq-dataset-v2.json").write_text(json.dumps(entries))

    _make(folder, fill)


_PLAIN = ("white", "grey", "pink", "cyan")


def _ball(rng: np.random.Generator) -> Thing:
    return Thing("circle", str(rng.choice(list(COLORS))))


def _ffhq_entry(number: int, path: str, data: bytes, rng: np.random.Generator) -> dict[str, Any]:
    _, licence, licence_url = _FFHQ_LICENCES[rng.choice(len(_FFHQ_LICENCES), p=[share for share, *_ in _FFHQ_LICENCES])]
    return {
        "category": "training" if rng.random() < 6 / 7 else "validation",
        "metadata": {
            "photo_url": f"https://photos.example/people/{number}",
            "photo_title": f"DSCF{number:04d}.JPG",
            "author": f"Photographer {rng.integers(30)}",
            "country": "",
            "license": licence,
            "license_url": licence_url,
            "date_uploaded": "2016-08-16",
            "date_crawled": "2018-10-10",
        },
        "thumbnail": {
            "file_url": f"https://photos.example/{path}",
            "file_path": path,
            "file_size": len(data),
            "file_md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "pixel_size": [128, 128],
        },
    }


# COCO: https://cocodataset.org/#format-data

_COCO_LICENCES = (
    (1, "Attribution-NonCommercial-ShareAlike License", "http://creativecommons.org/licenses/by-nc-sa/2.0/"),
    (2, "Attribution-NonCommercial License", "http://creativecommons.org/licenses/by-nc/2.0/"),
    (3, "Attribution-NonCommercial-NoDerivs License", "http://creativecommons.org/licenses/by-nc-nd/2.0/"),
    (4, "Attribution License", "http://creativecommons.org/licenses/by/2.0/"),
    (5, "Attribution-ShareAlike License", "http://creativecommons.org/licenses/by-sa/2.0/"),
    (6, "Attribution-NoDerivs License", "http://creativecommons.org/licenses/by-nd/2.0/"),
    (7, "No known copyright restrictions", "http://flickr.com/commons/usage/"),
    (8, "United States Government Work", "http://www.usa.gov/copyright.shtml"),
)


def make_coco(folder: Path, count: int = 240) -> None:
    """Makes val2017/000000000139.jpg … and annotations/captions_val2017.json, with five captions per image."""

    def fill(target: Path) -> None:
        rng = np.random.default_rng([_WORLD, 2])
        images, annotations = [], []
        for number, identity in enumerate(sorted(rng.choice(600_000, size=count, replace=False).tolist())):
            scene = random_scene(rng)
            name = f"{identity:012d}.jpg"
            width, height = ((240, 180), (180, 240), (224, 224), (200, 200))[number % 4]
            _put(target / "val2017" / name, encode(render(scene, width, height), Form.JPEG))
            images.append(_coco_image(identity, name, width, height, int(rng.integers(1, 9))))
            for turn, text in enumerate(_as_people_write(caption(scene))):
                annotations.append({"image_id": identity, "id": number * 5 + turn, "caption": text})
        licences = [{"url": url, "id": identity, "name": name} for identity, name, url in _COCO_LICENCES]
        document = {"info": _INFO, "licenses": licences, "images": images, "annotations": annotations}
        _put(target / "annotations" / "captions_val2017.json", json.dumps(document).encode())

    _make(folder, fill)


_INFO = {"description": "scenes of the demo world", "version": "1.0", "year": 2017, "date_created": "2017/09/01"}


def _coco_image(identity: int, name: str, width: int, height: int, licence: int) -> dict[str, Any]:
    return {
        "license": licence,
        "file_name": name,
        "coco_url": f"http://images.example/val2017/{name}",
        "height": height,
        "width": width,
        "date_captured": "2013-11-17 22:45:59",
        "flickr_url": f"http://photos.example/{identity}_z.jpg",
        "id": identity,
    }


def _as_people_write(words: str) -> tuple[str, ...]:
    """A caption with the five endings and spacings of COCO's annotators."""
    sentence = words[0].upper() + words[1:]
    return f"{sentence}.", words, f"{sentence}. ", f"{sentence}\n", f"{words}."


# ImageNet, as the Kaggle archive unpacks


def make_imagenet(folder: Path, each: int = 12) -> None:
    """Makes LOC_synset_mapping.txt and ILSVRC/Data/CLS-LOC/train/n90000001/n90000001_10.JPEG …, a synset per shape.

    One file is a PNG with the wrong extension and one is CMYK, as in ImageNet.
    """

    def fill(target: Path) -> None:
        rng = np.random.default_rng([_WORLD, 3])
        lines = []
        for place, shape in enumerate(SHAPES):
            synset = f"n{90000001 + place:08d}"
            lines.append(f"{synset} {shape}, {shape} shape\n")
            for number in range(each):
                scene = random_scene(rng, shapes=[shape], count=1)
                form = {(0, 1): Form.PNG, (1, 1): Form.CMYK_JPEG}.get((place, number), Form.JPEG)
                path = target / "ILSVRC" / "Data" / "CLS-LOC" / "train" / synset / f"{synset}_{number * 7 + 10}.JPEG"
                _put(path, encode(render(scene, *((200, 150), (160, 160))[number % 2]), form))
        (target / "LOC_synset_mapping.txt").write_text("".join(lines))

    _make(folder, fill)


def _make(folder: Path, fill: Callable[[Path], None]) -> None:
    if not folder.exists():
        with commit_folder(folder) as temporary:
            fill(temporary)


def _put(path: Path, data: bytes) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data
