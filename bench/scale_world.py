"""What stands at the door of a stage: an index, images, or tables that stages before would have made; a project."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from PIL import Image

from bench.laion_index import make_index
from dreamloom.base.models.clip_config import clip_models
from dreamloom.base.stage import PART_ROWS, Summary
from dreamloom.curate import score
from dreamloom.curate.known_scores import RowRecipes
from dreamloom.flows.project.project import Project, load_project
from dreamloom.scrape.collection import SCHEMAS, CaptionKind, Collection, Status, Table

MODELS = Path(__file__).parents[1] / "demo" / "models"
TRAINING = 100
"""Images to learn; all others are ground truth."""
WIDTH = 128
"""Of the drawn embeddings, as of those of the demo's CLIP."""
FOLDER_IMAGES = 10_000
_FIRST_OWN = 10**8
"""Number of the first image to learn: beyond those of ground truth, as equal images would be dropped."""
_SIDE = 48
_COPIES = 0.05
"""Share of the drawn scores that repeat another of their part."""
_COLORS = ["red", "green", "blue", "white", "black", "yellow", "brown", "pink", "grey", "orange"]
_NOUNS = ["bus", "street", "dog", "cat", "tree", "house", "boat", "bench", "horse", "table", "clock", "bird", "apple"]


@dataclass(frozen=True)
class World:
    """A project of 100 training images and `images` of ground truth, in a folder of its own."""

    folder: Path
    images: int
    part_rows: int = PART_ROWS
    """Images of a part of the records, where images are brought in."""

    @property
    def project(self) -> Project:
        """The project."""
        return load_project(self._file)

    @property
    def _file(self) -> Path:
        return self.folder / "project.yaml"

    @property
    def index(self) -> Path:
        """A folder of a LAION-style index with one row for each image."""
        return self.folder / "index"

    def make_index(self) -> None:
        """Makes the index, unless it is there."""
        if not self.index.exists():
            make_index(self.index, self.images, 100_000)

    def make_images(self) -> None:
        """Makes the pictures and project.yaml, unless they are there."""
        if not self._file.exists():
            make_pictures(self.folder / "own", TRAINING, first=_FIRST_OWN)
            make_pictures(self.folder / "world", self.images)
            self._write_project()

    def draw_tables(self) -> None:
        """Makes project.yaml, and the records and scores of images that are nowhere, unless they are there."""
        if not self._file.exists():
            self._write_project()
            self.draw_records()
            self.draw_scores()

    def _write_project(self) -> None:
        common = {"kind": "folder", "captions": "names", "part_rows": self.part_rows}
        content = {
            "name": "scale",
            "workspace": "work",
            "sources": {
                "own": {"role": "training", "path": "own", **common},
                "world": {"role": "ground_truth", "path": "world", **common},
            },
            "score": {"model": str(MODELS / "clip")},
            "caption": {"model": str(MODELS / "blip")},
            "balance": {"held_out": 0},  # no evaluation, which costs the same for any number
            "train": {
                "base": str(MODELS / "stable-diffusion"),
                "resolution": 64,
                "batch_size": 4,
                "max_train_steps": 2,
                "sample_every_n_steps": 0,
                "sample_prompts": ["a red bus"],
                "sample_steps": 1,
                "device": "cpu",
            },
        }
        for source in content["sources"]:
            (self.folder / source).mkdir(parents=True, exist_ok=True)
        self._file.write_text(yaml.safe_dump(content))

    def draw_records(self) -> None:
        """Writes the records of both sources, without any image."""
        for name, images in (("own", TRAINING), ("world", self.images)):
            collection, config = self.project.collection(name), self.project.sources[name]
            for start in range(0, images, PART_ROWS):
                rows = _draw_records(name, start, min(PART_ROWS, images - start))
                part, summary = f"{start // PART_ROWS:05d}", _summary(len(rows))
                collection.write(Table.RECORDS, part, rows, recipe="drawn", config=config, summary=summary)

    def draw_scores(self) -> None:
        """Writes the scores of all records: embeddings and hashes that are drawn, under the recipes of score."""
        project = self.project
        assert project.score is not None
        for name in project.sources:
            collection = project.collection(name)
            recipes = score.recipes(collection, project.score)
            for number, (part, recipe) in enumerate(recipes.items()):
                rows = _draw_part(collection, part, number, score.recipes_of_rows(project.score))
                models, config, summary = clip_models(project.score), project.score, _summary(len(rows))
                collection.write(Table.SCORES, part, rows, recipe=recipe, config=config, summary=summary, models=models)


def make_pictures(folder: Path, count: int, first: int = 0) -> None:
    """Writes small JPEGs of the same pixels and different bytes, named by captions, 10,000 in a folder."""
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((_SIDE, _SIDE))
    encoded = io.BytesIO()
    pixels.save(encoded, "JPEG", quality=75)
    beginning, rest = encoded.getvalue()[:2], encoded.getvalue()[2:]
    for number in range(first, first + count):
        inside = folder / f"{number // FOLDER_IMAGES:05d}"
        if number == first or number % FOLDER_IMAGES == 0:
            inside.mkdir(parents=True, exist_ok=True)
        comment = b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big")
        (inside / f"{_caption(number)}_{number}.jpg").write_bytes(beginning + comment + rest)


def _caption(number: int) -> str:
    return f"a {_COLORS[number % len(_COLORS)]} {_NOUNS[number // 7 % len(_NOUNS)]} in the street"


def _summary(rows: int) -> Summary:
    return Summary(rows=rows, kept=rows, parts_done=1, seconds=1.0)


def _draw_records(source: str, start: int, rows: int) -> list[dict[str, Any]]:
    """Returns rows of records of different small images, with captions."""
    sides = dict.fromkeys(("width", "height", "original_width", "original_height"), _SIDE)
    known = {"status": Status.OK, "bytes": 1000, "text_kind": CaptionKind.HUMAN, **sides}
    return [
        {"key": f"{source}-{number:09d}", "image": f"images/{number}.jpg", "text": _caption(number), **known}
        | dict.fromkeys(("sha256", "image_sha256"), f"{source}{number:060d}")
        for number in range(start, start + rows)
    ]


def _draw_part(collection: Collection, part: str, number: int, recipes: RowRecipes) -> pa.Table:
    records = collection.read(Table.RECORDS, part, ["key", "text", "image_sha256"])
    keys, of_rows = records["key"], [recipes.of(record) for record in records.to_pylist()]
    rng = np.random.default_rng([number, len(keys)])
    vectors = rng.standard_normal((len(keys), WIDTH), dtype=np.float32)
    hashes = rng.integers(-(2**63), 2**63, len(keys), dtype=np.int64)
    copies = int(len(keys) * _COPIES)
    vectors[:copies], hashes[:copies] = vectors[copies : 2 * copies], hashes[copies : 2 * copies]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = pa.array(np.arange(len(keys) + 1, dtype=np.int32) * WIDTH)
    embeddings = pa.ListArray.from_arrays(offsets, pa.array(vectors.astype(np.float16).ravel()))
    columns = {"key": keys, "embedding": embeddings, "phash": pa.array(hashes), "recipe": pa.array(of_rows)}
    nulls = {f.name: pa.nulls(len(keys), f.type) for f in SCHEMAS[Table.SCORES] if f.name not in columns}
    return pa.table(columns | nulls).select(SCHEMAS[Table.SCORES].names)
