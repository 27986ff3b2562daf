"""A captioner that somebody adds is honoured from end to end, and its model type is one that check knows."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.caption.captioners import CAPTIONERS, load_captioner, unload_captioners
from dreamloom.caption.captioners.captioner import CaptionerFamily, GeneratedCaption
from dreamloom.caption.check import check
from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.stage import caption
from dreamloom.scrape.collection import CaptionKind, Collection, Table


class Toy:
    """Says how large an image is."""

    side = 8

    def prepare(self, image: Image.Image) -> torch.Tensor:
        return torch.tensor(image.size)

    def generate(self, images: Sequence[torch.Tensor], keys: Sequence[str]) -> list[list[GeneratedCaption]]:
        assert len(images) == len(keys)
        return [[GeneratedCaption([], "wide" if image[0] > image[1] else "tall", -1.0)] for image in images]


@pytest.fixture
def unloaded() -> Iterator[list[str]]:
    calls: list[str] = []
    toy = CaptionerFamily(("toy",), lambda config: Toy(), lambda: calls.append("toy"))
    CAPTIONERS.append(toy)
    yield calls
    CAPTIONERS.remove(toy)


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "config.json").write_text(json.dumps({"model_type": "toy"}))
    (tmp_path / "toy" / "model.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"{}")
    return str(tmp_path / "toy")


def test_a_captioner_that_is_added_captions(
    unloaded: list[str], model: str, make_collection: Callable[..., Collection]
) -> None:
    collection = make_collection()
    config = CaptionConfig(model=model, keep_kinds=())
    check(config)
    assert caption(collection, config).kept == 10
    rows = collection.read(Table.CAPTIONS).to_pylist()
    assert {row["caption"] for row in rows} == {"wide", "tall"}
    assert {(row["model"], row["kind"]) for row in rows} == {(model, CaptionKind.MODEL)}
    unload_captioners()
    assert unloaded == ["toy"]


def test_a_model_that_no_captioner_runs_is_refused(model: str) -> None:
    for use in (check, load_captioner):
        with pytest.raises(UserError, match="of type toy, not blip or blip-2"):
            use(CaptionConfig(model=model))
