"""The cache of texts: hidden states are computed once; a text encoder that is trained gets tokens."""

from pathlib import Path

import pytest
import torch

from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.families.opening import load_model
from dreamloom.train.model.model import Model
from tests.train.conftest import tokens_of

CAPTIONS = ["", "a thing", "a scene of kind 1"]


@pytest.fixture(scope="module")
def model(tiny_base: str) -> Model:
    return load_model(tiny_base, torch.device("cpu"))


def states_of(cache: TextCache, captions: list[str]) -> torch.Tensor:
    return cache.get(captions).encoders["text_encoder"]["states"]


def test_answers_are_the_encoders_and_kept_for_the_next_run(model: Model, tmp_path: Path) -> None:
    first = TextCache(model, tmp_path, changing=())
    first.add([*CAPTIONS, *CAPTIONS])
    captions = ["a scene of kind 1", "", "a thing", "a thing"]
    with torch.no_grad():
        live = model.encode(model.tokenize(captions)).states
    kept = states_of(first, captions)
    assert kept.dtype == torch.float16 and torch.allclose(kept.float(), live, atol=2e-3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    assert len(first.stores["text_encoder"]) == 3 and len(before) == 1
    again = TextCache(model, tmp_path, changing=())
    again.add(CAPTIONS[::-1])
    assert torch.equal(states_of(again, captions), states_of(first, captions))
    again.add(["another"])
    assert {path: path.read_bytes() for path in before} == before and len(again.stores["text_encoder"]) == 4


def test_captions_that_are_cut_to_the_same_tokens_are_kept_once(model: Model) -> None:
    cache = TextCache(model, None, changing=())
    cache.add(["a" * 30 + " b", "a" * 30 + " c"])
    assert len(cache.stores["text_encoder"]) == 1


def test_an_encoder_that_learns_is_given_tokens(model: Model, tmp_path: Path) -> None:
    cache = TextCache(model, tmp_path, changing=("text_encoder",))
    cache.add(CAPTIONS)
    for captions in (["a thing", "not seen before"], ["a thing"]):
        assert torch.equal(tokens_of(cache.get(captions)), tokens_of(model.tokenize(captions)))
    assert not list(tmp_path.iterdir())


def test_captions_that_were_not_added_are_tokens(model: Model) -> None:
    cache = TextCache(model, None, changing=())
    cache.add(CAPTIONS)
    assert tokens_of(cache.get(["a thing", "new"])).dtype == torch.int64


def test_a_fill_that_was_broken_off_ends_with_the_same_bits(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = [f"scene number {number}" for number in range(20)]
    monkeypatch.setattr("dreamloom.train.data.tensor_store.SHARD_BYTES", 1)  # a shard for each group
    monkeypatch.setattr("dreamloom.train.data.text_cache._ENCODED_TOGETHER", 4)
    whole = TextCache(model, tmp_path / "whole", changing=())
    whole.add(captions)

    def break_off(done: int, total: int | None, note: str = "") -> None:
        if done >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TextCache(model, tmp_path / "broken", changing=()).add(captions, break_off)
    left = len(list((tmp_path / "broken").rglob("*.safetensors")))
    resumed = TextCache(model, tmp_path / "broken", changing=())
    resumed.add(captions)
    assert 0 < left < len(list((tmp_path / "broken").rglob("*.safetensors")))
    assert torch.equal(states_of(whole, captions), states_of(resumed, captions))
