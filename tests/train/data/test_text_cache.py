"""The cache of texts: hidden states are computed once; a text encoder that is trained gets tokens."""

from pathlib import Path

import pytest
import torch

from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.model.model import Model, load_model

CAPTIONS = ["", "a thing", "a scene of kind 1"]


@pytest.fixture(scope="module")
def model(tiny_base: str) -> Model:
    return load_model(tiny_base, torch.device("cpu"))


def test_answers_are_the_encoders_and_kept_for_the_next_run(model: Model, tmp_path: Path) -> None:
    first = TextCache(model, tmp_path, frozen=True)
    first.add([*CAPTIONS, *CAPTIONS])
    captions = ["a scene of kind 1", "", "a thing", "a thing"]
    with torch.no_grad():
        live = model.encode_text(model.tokenize(captions))
    assert first.get(captions).dtype == torch.float16 and torch.allclose(first.get(captions).float(), live, atol=2e-3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    assert len(first.store.entries) == 3 and len(before) == 1
    again = TextCache(model, tmp_path, frozen=True)
    again.add(CAPTIONS[::-1])
    assert torch.equal(again.get(captions), first.get(captions))
    again.add(["another"])
    assert {path: path.read_bytes() for path in before} == before and len(again.store.entries) == 4


def test_captions_that_are_cut_to_the_same_tokens_are_kept_once(model: Model) -> None:
    cache = TextCache(model, None, frozen=True)
    cache.add(["a" * 30 + " b", "a" * 30 + " c"])
    assert len(cache.store.entries) == 1


def test_an_encoder_that_learns_is_given_tokens(model: Model, tmp_path: Path) -> None:
    cache = TextCache(model, tmp_path, frozen=False)
    cache.add(CAPTIONS)
    assert torch.equal(cache.get(["a thing", "not seen before"]), model.tokenize(["a thing", "not seen before"]))
    assert torch.equal(cache.get(["a thing"]), model.tokenize(["a thing"]))
    assert not list(tmp_path.iterdir())


def test_captions_that_were_not_added_are_tokens(model: Model) -> None:
    cache = TextCache(model, None, frozen=True)
    cache.add(CAPTIONS)
    assert cache.get(["a thing", "new"]).dtype == torch.int64


def test_a_fill_that_was_broken_off_ends_with_the_same_bits(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = [f"scene number {number}" for number in range(20)]
    monkeypatch.setattr("dreamloom.train.data.tensor_store.SHARD_BYTES", 1)  # a shard for each group
    monkeypatch.setattr("dreamloom.train.data.text_cache._ENCODED_TOGETHER", 4)
    whole = TextCache(model, tmp_path / "whole", frozen=True)
    whole.add(captions)

    def break_off(done: int, total: int | None, note: str = "") -> None:
        if done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TextCache(model, tmp_path / "broken", frozen=True).add(captions, break_off)
    left = len(list((tmp_path / "broken").rglob("*.safetensors")))
    resumed = TextCache(model, tmp_path / "broken", frozen=True)
    resumed.add(captions)
    assert 0 < left < len(list((tmp_path / "broken").rglob("*.safetensors")))
    assert torch.equal(whole.get(captions), resumed.get(captions))
