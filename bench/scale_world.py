"""What stands at the door of each stage: images, an index, tables that a stage before would have made, a project."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from PIL import Image

from bench.laion_index import make_index
from dreamloom.base.clip_config import clip_models
from dreamloom.base.stage import Summary
from dreamloom.curate import score
from dreamloom.flows.project import Project, load_project
from dreamloom.scrape.collection import SCHEMAS, Collection, Table

MODELS = Path(__file__).parents[1] / "demo" / "models"
TRAINING = 100
"""Images to learn; all others are ground truth."""
WIDTH = 128
"""Of the drawn embeddings, as of those of the demo's CLIP."""
_FOLDER_IMAGES = 10_000
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

    @property
    def project(self) -> Project:
        """The project."""
        return load_project(self.folder / "project.yaml")

    @property
    def index(self) -> Path:
        """A folder of a LAION-style index with one row for each image."""
        return self.folder / "index"

    def make(self) -> None:
        """Makes the pictures, the index and project.yaml."""
        make_index(self.index, self.images, 100_000)
        make_pictures(self.folder / "own", TRAINING)
        make_pictures(self.folder / "world", self.images)
        content = {
            "name": "scale",
            "workspace": "work",
            "sources": {
                "own": {"kind": "folder", "role": "training", "path": "own", "captions": "names"},
                "world": {"kind": "folder", "role": "ground_truth", "path": "world", "captions": "names"},
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
                "device": "cpu",
            },
        }
        (self.folder / "project.yaml").write_text(yaml.safe_dump(content))

    def draw_scores(self) -> None:
        """Writes the scores of all records: embeddings and hashes that are drawn, under the recipes of score."""
        project = self.project
        assert project.score is not None
        for name in project.sources:
            collection = project.collection(name)
            recipes = score.recipes(collection, project.score)
            for number, (part, recipe) in enumerate(recipes.items()):
                rows = _draw_part(collection, part, number)
                summary = Summary(rows=len(rows), kept=len(rows), parts_done=1, seconds=1.0)
                models, config = clip_models(project.score), project.score
                collection.write(Table.SCORES, part, rows, recipe=recipe, config=config, summary=summary, models=models)


def make_pictures(folder: Path, count: int, first: int = 0) -> None:
    """Writes small JPEGs of the same pixels and different bytes, named by captions, 10,000 in a folder."""
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((_SIDE, _SIDE))
    encoded = io.BytesIO()
    pixels.save(encoded, "JPEG", quality=75)
    beginning, rest = encoded.getvalue()[:2], encoded.getvalue()[2:]
    for number in range(first, first + count):
        inside = folder / f"{number // _FOLDER_IMAGES:05d}"
        if number == first or number % _FOLDER_IMAGES == 0:
            inside.mkdir(parents=True, exist_ok=True)
        color, noun = _COLORS[number % len(_COLORS)], _NOUNS[number // 7 % len(_NOUNS)]
        comment = b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big")
        (inside / f"a {color} {noun} in the street_{number}.jpg").write_bytes(beginning + comment + rest)


def _draw_part(collection: Collection, part: str, number: int) -> pa.Table:
    keys = collection.read(Table.RECORDS, part, ["key"])["key"]
    rng = np.random.default_rng([number, len(keys)])
    vectors = rng.standard_normal((len(keys), WIDTH), dtype=np.float32)
    hashes = rng.integers(-(2**63), 2**63, len(keys), dtype=np.int64)
    copies = int(len(keys) * _COPIES)
    vectors[:copies], hashes[:copies] = vectors[copies : 2 * copies], hashes[copies : 2 * copies]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = pa.array(np.arange(len(keys) + 1, dtype=np.int32) * WIDTH)
    embeddings = pa.ListArray.from_arrays(offsets, pa.array(vectors.astype(np.float16).ravel()))
    columns = {"key": keys, "embedding": embeddings, "phash": pa.array(hashes)}
    nulls = {f.name: pa.nulls(len(keys), f.type) for f in SCHEMAS[Table.SCORES] if f.name not in columns}
    return pa.table(columns | nulls).select(SCHEMAS[Table.SCORES].names)
