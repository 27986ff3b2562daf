"""Small collections, and a small open_clip model with random weights."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamloom.base.stage import StageConfig, Summary
from dreamloom.scrape.collection import CaptionKind, Collection, Status, Table, key_of

MakeCollection = Callable[..., Collection]

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that open_clip loads, as `local-dir:<folder>`."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": {"size": 32}}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(open_clip.CLIP(**CLIP).state_dict(), folder / "open_clip_model.safetensors")
    return folder


def noise(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """An image of coarse noise: unlike every other, and the same each time."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


class _Ingested(StageConfig):
    min_side: int = 16


@pytest.fixture
def make_collection(tmp_path: Path) -> MakeCollection:
    """Makes a collection of records in `tmp_path`, whose images are noise unless they are given."""

    def make(name: str, records: Sequence[dict[str, Any]], part_rows: int = 100) -> Collection:
        collection = Collection(tmp_path / "collections" / name)
        for first in range(0, max(1, len(records)), part_rows):
            part = f"{first // part_rows:05d}"
            rows = [
                _record(collection, part, name, number, record)
                for number, record in enumerate(records[first : first + part_rows], first)
            ]
            kept = sum(row["status"] == Status.OK for row in rows)
            summary = Summary(rows=len(rows), kept=kept)
            for row in rows:
                if row["status"] != Status.OK:
                    summary.dropped[row["status"]] = summary.dropped.get(row["status"], 0) + 1
            stamp = hashlib.sha256(repr(rows).encode()).hexdigest()
            collection.write(Table.RECORDS, part, rows, recipe=stamp, config=_Ingested(), summary=summary)
        return collection

    return make


def _record(collection: Collection, part: str, name: str, number: int, record: dict[str, Any]) -> dict[str, Any]:
    values = dict(record)
    image = values.pop("content", None) or noise(hash_seed(name, number))
    row = {"key": key_of("test", name, str(number)), "status": Status.OK, "text_kind": CaptionKind.HUMAN, **values}
    if row["status"] != Status.OK:
        return row
    path = collection.image_folder(part) / f"{row['key']}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
        size = (0, 0)
    else:
        image.save(path)
        size = image.size
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = {
        "image": str(path.relative_to(collection.root)),
        "sha256": digest,
        "image_sha256": digest,
        "width": size[0],
        "height": size[1],
    }
    return {**found, "bytes": path.stat().st_size, **row}


def hash_seed(name: str, number: int) -> int:
    """A seed that differs for every image of every collection."""
    return int.from_bytes(hashlib.sha256(f"{name} {number}".encode()).digest()[:4], "big")
