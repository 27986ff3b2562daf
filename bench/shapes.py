"""Compares training on images of many shapes with training on one: what mixed batches cost.

    python -m bench.shapes [--own 1000] [--rounds 5] [--steps 10] [--batch-size 4 8 16] [--threads 1]

one     every image has the square bucket.
many    as many images, dealt over all buckets, so that most batches are mixed (dreamloom.train.data.schedule).

Both train the demo's model on `--own` images and half as many of ground truth per epoch (a share of 1,000), with cached
latents and text, and take turns; `--own 50` is EveryDream's own example. The ratio is latent cells per second, many ÷
one, as buckets differ a little in area. Prints a table, then a line of JSON.
"""

# ruff: noqa: E402
from dreamloom.base.cpu import keep_freed_memory

keep_freed_memory()  # before torch

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from bench.train import BASE, CPU, fill_caches
from dreamloom.base.images.buckets import Size, generate_buckets
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.data.loader import BatchLoader, LoadedBatch
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.families.opening import load_model
from dreamloom.train.loop.distributed import SINGLE_PROCESS
from dreamloom.train.loop.trainer import Trainer

RESOLUTION, STEP = 128, 8


class Run:
    """A run that can be taken on by some steps at a time."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        config = TrainConfig(
            base=BASE,
            resolution=RESOLUTION,
            bucket_reso_steps=STEP,
            batch_size=batch_size,
            epochs=1000,
            text_encoder_learning_rate=0,
            num_workers=1,
        )
        data = read_dataset(folder, RESOLUTION, STEP, 1)
        model = load_model(BASE, CPU)
        latents, texts = fill_caches(model, data, config, folder / f".cache-{batch_size}")
        self.schedule = BatchSchedule(data, config)
        self.trainer = Trainer(model, self.schedule, config)
        steps = map(SINGLE_PROCESS.shard, self.schedule.steps_after(0))
        self.steps = BatchLoader(data, latents, texts, config, pin=False).steps(steps)
        self.advance(2)

    def advance(self, steps: int) -> float:
        """Takes some steps; returns latent cells per second."""
        cells, seconds = 0, 0.0
        for _ in range(steps):
            batches = next(self.steps)
            begin = time.perf_counter()
            self.trainer.step(batches)
            seconds += time.perf_counter() - begin
            cells += sum(_cells(batch) for batch in batches)
        return cells / seconds


def _cells(batch: LoadedBatch) -> int:
    return batch.posteriors.shape[0] * batch.posteriors.shape[-2] * batch.posteriors.shape[-1]


def make_folder(folder: Path, own: int, shapes: list[Size]) -> Path:
    """Writes images of one's own and of ground truth, dealt over some shapes."""
    random = np.random.default_rng(0)
    for name, count, multiply in (("own", own, "1"), ("ground truth", 1000, f"{own}/2000")):
        (folder / name).mkdir(parents=True)
        (folder / name / "multiply.txt").write_text(multiply)
        for number in range(count):
            width, height = shapes[number * 7 % len(shapes)]
            pixels = random.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((width, height)).save(folder / name / f"a thing_{number}.png")
    return folder


def main() -> None:
    """Measures, and prints a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--own", type=int, default=1000, help="training images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="steps of each, per round")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shapes = list(generate_buckets(RESOLUTION, STEP))
    result = {}
    with tempfile.TemporaryDirectory() as place:
        folders = {"one": make_folder(Path(place, "one"), given.own, [(RESOLUTION, RESOLUTION)])}
        folders["many"] = make_folder(Path(place, "many"), given.own, shapes)
        print(f"{len(shapes)} shapes at {RESOLUTION} pixels")
        for batch_size in given.batch_size:
            runs = {name: Run(folder, batch_size) for name, folder in folders.items()}
            speeds = [{name: run.advance(given.steps) for name, run in runs.items()} for _ in range(given.rounds)]
            ratio = median(speed["many"] / speed["one"] for speed in speeds)
            passes = runs["many"].schedule.mean_forward_passes()
            print(f"batch_size {batch_size:3}: {passes:.2f} forward passes per batch, many ÷ one {ratio:.3f}")
            result[f"batch_{batch_size}"] = round(ratio, 3)
    print(
        json.dumps(
            {"own": given.own, "shapes": len(shapes), **result, "threads": given.threads, "torch": torch.__version__}
        )
    )


if __name__ == "__main__":
    main()
