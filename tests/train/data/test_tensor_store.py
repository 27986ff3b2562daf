"""Tensors in shards: what is read is what was written, and damage is noticed and told."""

import logging
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.train.data.tensor_store import DamagedError, TensorStore

ENTRIES = {name: torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(7)).half() for name in ("aa", "ab")}


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one shard of a store."""
    store = TensorStore(tmp_path_factory.mktemp("store"))
    with store.filling(list(ENTRIES)):
        store.put(ENTRIES)
    assert store.folder is not None
    (path,) = store.folder.glob("*.safetensors")
    return path


def read(folder: Path) -> dict[str, torch.Tensor]:
    """Returns the entries that are whole."""
    store = TensorStore(folder)
    store.look_through()
    found = {}
    for key in ENTRIES:
        try:
            found[key] = store[key].clone()
        except (KeyError, DamagedError):
            assert store.missing([key]) == [key]
    return found


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_is_read_as_a_tensor(shard: Path, place: float, bit: int) -> None:
    whole = shard.read_bytes()
    content = bytearray(whole)
    content[int(place * len(whole))] ^= 1 << bit
    try:
        shard.write_bytes(content)
        found = read(shard.parent)
    finally:
        shard.write_bytes(whole)
    assert all(torch.equal(found[key], ENTRIES[key]) and found[key].dtype == ENTRIES[key].dtype for key in found)
    assert read(shard.parent).keys() == ENTRIES.keys()


def test_an_entry_that_is_damaged_in_one_shard_is_read_from_another(shard: Path, tmp_path: Path) -> None:
    content = shard.read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert len(read(tmp_path)) == 1
    (tmp_path / "b.safetensors").write_bytes(content)
    assert read(tmp_path).keys() == ENTRIES.keys() and len(TensorStore(tmp_path)) == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists what is open")
def test_shards_stay_mapped_and_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamloom.train.data.tensor_store.SHARD_BYTES", 1)  # a shard for each entry
    store, before = TensorStore(tmp_path), len(os.listdir("/proc/self/fd"))
    entries = {str(number): torch.full((3,), number).half() for number in range(20)}
    with store.filling(list(entries)):
        for key, entry in entries.items():
            store.put({key: entry})
    assert len(list(tmp_path.glob("*.safetensors"))) == len(store) == 20
    assert all(torch.equal(store[key], entry) for key, entry in entries.items())
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the folder's lock


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_shard_that_was_cut_short_is_told(
    shard: Path, tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    content = shard.read_bytes()
    (tmp_path / shard.name).write_bytes(content[: int(share * len(content))])
    with caplog.at_level(logging.WARNING):
        assert not read(tmp_path)
    assert f"{shard.name} is damaged" in caplog.text
