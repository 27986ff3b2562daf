"""Only what a run shows is encoded, and one that can't be decoded gives its place to others."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset, Problem, read_dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.data.shown import encode_shown
from dreamloom.train.evaluate.datasets import read_datasets
from dreamloom.train.families.opening import load_model


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty images of which an epoch shows two."""
    folder = tmp_path / "many"
    (folder / "truth").mkdir(parents=True)
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "truth" / f"{number:02d}.png")
    (folder / "truth" / "multiply.txt").write_text("0.05")
    return folder


def shown_in(schedule: BatchSchedule, dataset: Dataset) -> set[str]:
    batches = (batch for step in schedule.steps_after(0) for slot in step for batch in slot)
    return {dataset.samples[place].name for batch in batches for place in batch.sample_ids}


def test_what_is_not_dealt_is_not_encoded(many: Path, tiny_base: str, config: Callable[..., TrainConfig]) -> None:
    vae = load_model(tiny_base, torch.device("cpu")).vae
    settings = config(max_train_steps=6, batch_size=1)
    data = read_dataset(many, 32, 8, 1)
    cache = LatentCache(None, vae)
    dataset, schedule = encode_shown(data, cache, settings)
    names = shown_in(schedule, dataset)
    assert dataset == data and len(names) == len(cache.store) == 6

    broken = sorted(names)[:2]
    for name in broken:
        (many / name).write_bytes((many / name).read_bytes()[:200])
    again = LatentCache(None, vae)
    dataset, schedule = encode_shown(read_dataset(many, 32, 8, 1), again, settings)
    assert set(dataset.problems) == {Problem(name, "truncated") for name in broken}
    after = shown_in(schedule, dataset)
    assert len(after) == len(again.store) == 6 and after > names - set(broken)


@pytest.mark.parametrize(("ratio", "truth"), [(1, 12), (0.5, 6), (0, 0)])
def test_a_ratio_of_ground_truth_is_that_of_the_images_that_can_be_decoded(
    many: Path, tiny_base: str, config: Callable[..., TrainConfig], ratio: float, truth: int
) -> None:
    """Of 40 images of ground truth 30 are truncated, of 6 others 2."""
    (many / "own").mkdir()
    for number in range(6):
        shutil.copyfile(many / "truth" / f"{number:02d}.png", many / "own" / f"{number}.png")
    for image in [*sorted((many / "truth").glob("*.png"))[:30], many / "own" / "0.png", many / "own" / "5.png"]:
        image.write_bytes(image.read_bytes()[:200])
    settings = config(epochs=3, ground_truth=["truth"], ground_truth_ratio=ratio)
    data, _ = read_datasets(many, None, settings)
    dataset, schedule = encode_shown(data, LatentCache(None, load_model(tiny_base, torch.device("cpu")).vae), settings)
    shown = {dataset.folders[index].name: count for index, (_, count) in schedule.images_by_folder().items()}
    assert shown == {"own": 12, **({"truth": truth} if truth else {})}
