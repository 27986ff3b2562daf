"""The cache of latents: by content, whole or not there, and what a VAE gives without it."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.crops import CropPlanner, center_view, render_views
from dreamloom.train.data.dataset import Problem, Sample, read_dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import BatchLoader
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.families.opening import load_base_model, load_model
from dreamloom.train.loop.distributed import SINGLE_PROCESS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae(tiny_base: str) -> object:
    return load_model(tiny_base, CPU).vae


@pytest.fixture(scope="module")
def samples(folder: Path) -> tuple[Sample, ...]:
    return read_dataset(folder, 32, 8, 1).samples


def at(cache: LatentCache, sample: Sample) -> torch.Tensor:
    return cache.get(sample, center_view(sample))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_an_entry_is_the_posterior_that_the_vae_gives(vae: object, samples: tuple[Sample, ...], tmp_path: Path) -> None:
    cache = LatentCache(tmp_path, vae)
    assert cache.add(samples, 2) == []
    for sample in samples:
        image = (
            torch.from_numpy(render_views(sample, [center_view(sample)])[0].copy()).permute(2, 0, 1)[None].float()
            / 127.5
            - 1
        )
        with torch.no_grad():
            posterior = vae.encode(image).latent_dist  # type: ignore[attr-defined]
        mean, deviation = at(cache, sample).float()
        assert torch.allclose(mean, posterior.mean[0], atol=2e-3)
        assert torch.allclose(deviation, posterior.std[0], atol=2e-3)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_what_was_made_is_mapped_from_the_disk_and_not_held_in_memory(
    vae: object, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    cache = LatentCache(tmp_path, vae)
    cache.add(samples, 2)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    mappings = [range(*(int(end, 16) for end in line[0].split("-"))) for line in maps]
    assert all(any(at(cache, sample).data_ptr() in mapping for mapping in mappings) for sample in samples)


def test_what_is_there_is_not_made_again_whatever_the_file_is_called(
    vae: object, folder: Path, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    first = LatentCache(tmp_path / "cache", vae)
    first.add(samples, 2)
    before = {path: path.read_bytes() for path in shards(tmp_path / "cache")}
    shutil.copytree(folder / "own", tmp_path / "moved" / "elsewhere")
    moved = read_dataset(tmp_path / "moved", 32, 8, 1).samples
    again = LatentCache(tmp_path / "cache", vae)
    again.add(moved, 2)
    assert {path: path.read_bytes() for path in shards(tmp_path / "cache")} == before
    own = [sample for sample in samples if sample.name.startswith("own/")]
    assert all(torch.equal(at(first, a), at(again, b)) for a, b in zip(own, moved, strict=True))


def test_other_bytes_buckets_and_vaes_are_other_entries(
    vae: object, folder: Path, samples: tuple[Sample, ...], tmp_path: Path, tiny_base: str
) -> None:
    cache = LatentCache(tmp_path, vae)
    cache.add(samples, 2)
    bigger = read_dataset(folder, 48, 8, 1).samples
    larger = LatentCache(tmp_path, vae)
    larger.add(bigger, 2)
    assert at(larger, bigger[0]).shape[-1] > at(cache, samples[0]).shape[-1]
    other = load_model(tiny_base, CPU).vae
    with torch.no_grad():
        other.encoder.conv_in.weight += 1
    changed = LatentCache(tmp_path, other)
    changed.add(samples, 2)
    assert changed.store.folder != cache.store.folder
    assert not torch.equal(at(changed, samples[0]), at(cache, samples[0]))


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_damaged_entries_are_found_and_made_again(
    vae: object, samples: tuple[Sample, ...], tmp_path: Path, damage: str
) -> None:
    cache = LatentCache(tmp_path, vae)
    cache.add(samples, 2)
    before = {sample.name: at(cache, sample).clone() for sample in samples}
    del cache
    (shard,) = shards(tmp_path)
    content = shard.read_bytes()
    if damage == "flip":
        content = content[:-5] + bytes([content[-5] ^ 0x40]) + content[-4:]
    shard.unlink()
    shard.write_bytes({"flip": content, "truncate": content[: len(content) // 2], "empty": b""}[damage])
    repaired = LatentCache(tmp_path, vae)
    assert repaired.add(samples, 2) == []
    assert all(torch.allclose(at(repaired, s).float(), before[s.name].float(), atol=2e-3) for s in samples)
    assert len(shards(tmp_path)) == 2
    vae.encode, encode = None, vae.encode  # type: ignore[attr-defined]  # nothing is encoded
    try:
        assert LatentCache(tmp_path, vae).add(samples, 2) == []
    finally:
        vae.encode = encode  # type: ignore[attr-defined]


def test_a_fill_that_was_broken_off_ends_with_the_same_bits(
    vae: object, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tmp_path / "many"
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        (many / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(many / "a" / f"{number}.png")
    samples = read_dataset(many, 32, 8, 1).samples
    monkeypatch.setattr("dreamloom.train.data.tensor_store.SHARD_BYTES", 1)  # a shard for each group
    monkeypatch.setattr("dreamloom.train.data.latent_cache.GROUP_MAX_IMAGES", 8)
    whole = LatentCache(tmp_path / "whole", vae)
    whole.add(samples, 2)

    def break_off(done: int, total: int | None, note: str = "") -> None:
        if note == "encoding images" and done >= 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LatentCache(tmp_path / "broken", vae).add(samples, 2, break_off)
    left = len(shards(tmp_path / "broken"))
    resumed = LatentCache(tmp_path / "broken", vae)
    resumed.add(samples, 2)
    assert 0 < left < len(shards(tmp_path / "broken"))
    assert all(torch.equal(at(whole, sample), at(resumed, sample)) for sample in samples)


def test_a_cache_that_another_run_fills_can_be_read_and_filling_it_is_refused(
    vae: object, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    LatentCache(tmp_path, vae).add(samples[:3], 1)
    (folder,) = {shard.parent for shard in shards(tmp_path)}
    child = os.fork()
    if child == 0:
        with lock(folder):
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    try:
        assert LatentCache(tmp_path, vae).add(samples[:3], 1) == []
        with pytest.raises(UserError, match=rf"process {child}\); wait .* or give this run a cache of its own"):
            LatentCache(tmp_path, vae).add(samples, 1)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_images_that_cannot_be_decoded_are_named_and_the_others_made(vae: object, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "own", tmp_path / "images" / "own")
    samples = read_dataset(tmp_path / "images", 32, 8, 1).samples
    samples[0].image.source.path.write_bytes(samples[0].image.source.path.read_bytes()[:200])
    samples[1].image.source.path.unlink()
    cache = LatentCache(None, vae)
    assert set(cache.add(samples, 2)) == {
        Problem(samples[0].name, "truncated"),
        Problem(samples[1].name, "missing_file"),
    }
    assert all(at(cache, sample).isfinite().all() for sample in samples[2:])


def test_a_vae_without_a_posterior_has_no_deviation(
    tiny_base: str, samples: tuple[Sample, ...], shared_data: Path
) -> None:
    taesd = load_model(tiny_base, CPU, str(shared_data / "taesd" / "taesd_diffusers_fp16")).vae
    cache = LatentCache(None, taesd)
    cache.add(samples[:2], 1)
    mean, deviation = at(cache, samples[0])
    assert mean.shape == (4, 4, 4) and mean.abs().sum() > 0
    assert not deviation.any()


def test_flips_and_crops_are_kept_where_they_are_shown(
    vae: object, folder: Path, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    planner = CropPlanner(TrainConfig(flip_p=0.5, crop_jitter=0.2, crops_per_image=2))
    cache = LatentCache(tmp_path, vae)
    assert cache.add(samples, 2, views=planner.all_views) == []
    assert len(cache.store) == 4 * len(samples)
    for sample in samples[:3]:
        image = torch.from_numpy(render_views(sample, planner.all_views(sample))[1].copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            posterior = vae.encode(image.float() / 127.5 - 1).latent_dist  # type: ignore[attr-defined]
        flipped = planner.all_views(sample)[1]
        assert flipped.flipped
        assert torch.allclose(cache.get(sample, flipped)[0].float(), posterior.mean[0], atol=2e-3)
    plain_only = LatentCache(tmp_path, vae)
    plain_only.add(samples, 2)
    assert len(plain_only.store) == 4 * len(samples) and len(shards(tmp_path)) == 1, "the plain ones are there"


def test_a_padded_images_loss_counts_inside_it_alone(vae: object, tmp_path: Path, tiny_base: str) -> None:
    """32 pixels are 8 cells here: an image of 64 × 24 fills 12 of 32 rows, which cover the cells 3 and 4 whole."""
    (tmp_path / "a").mkdir()
    Image.new("RGB", (64, 24), "teal").save(tmp_path / "a" / "x.png")
    config = TrainConfig(resolution=32, bucket_reso_steps=32, batch_size=1, pad_color="#ffffff", num_workers=1)
    data = read_dataset(tmp_path, 32, 32, 1)
    latent_cache = LatentCache(None, vae)
    latent_cache.add(data.samples, 1, views=CropPlanner(config).all_views)
    text_cache = TextCache(load_model(tiny_base, CPU), None, changing=("text_encoder",))
    ((batch,), *_) = BatchLoader(data, latent_cache, text_cache, config, pin=False).steps(
        map(SINGLE_PROCESS.shard, BatchSchedule(data, config).steps_after(0))
    )
    assert batch.loss_mask is not None and batch.loss_mask.shape == (1, 8, 8)
    assert batch.loss_mask[0].sum(1).tolist() == [0, 0, 0, 8, 8, 0, 0, 0]
    whole = BatchLoader(
        data, latent_cache, text_cache, TrainConfig(resolution=32, bucket_reso_steps=32, batch_size=1), pin=False
    )
    latent_cache.add(data.samples, 1)
    assert (
        next(iter(whole.steps(map(SINGLE_PROCESS.shard, BatchSchedule(data, config).steps_after(0)))))[0].loss_mask
        is None
    )


def test_what_is_encoded_in_tiles_is_cached_apart(vae: object, folder: Path, tmp_path: Path, tiny_base: str) -> None:
    tiled = load_base_model(TrainConfig(base=tiny_base, vae_tiling=True), tiny_base, CPU).vae
    samples = read_dataset(folder, 48, 8, 1).samples[:2]  # larger than a tile of 32
    caches = [LatentCache(tmp_path, each) for each in (vae, tiled)]
    for cache in caches:
        assert cache.add(samples, 1) == []
    assert len(list(tmp_path.iterdir())) == 2
    whole, parts = (at(cache, samples[0]) for cache in caches)
    assert whole.shape == parts.shape and not torch.equal(whole, parts)
