"""Compares the trainer with a bare step and with a plain loop, on the same model and the same images.

    python -m bench.train [--family sd] [--rounds 6] [--steps 10] [--threads 1] [--unclipped]
    python -m bench.train --size large --rounds 3 --steps 1 --threads 2

small   the demo's model at 64 pixels, batches of 16, its text encoder frozen. With --family sdxl and sd3, a tiny model
        of that structure (bench.families) with random weights; sd3 without T5.
large   dreamloom's defaults, on a UNet of Stable Diffusion 1.5's blocks at 0.4 times its width (142 M parameters) with
        its own text encoder (123 M), which learns, and its own VAE; random weights, 256 pixels (--side), batches of 4.

bare    forward and backward pass of diffusers' class of the denoiser, clipping of the gradient's norm by torch's own
        function, as diffusers' scripts do, and optimizer step, on tensors already in memory: the limit. With
        --unclipped neither this nor ours clips; ours takes the norm all the same, as it logs it.
ours    dreamloom.train with cached latents and text.
fill    what ours does once before: encodes images and captions into the cache.
plain   each step of diffusers' train_text_to_image.py, or its like for the family (timesteps are drawn evenly):
        decoding, VAE, text encoders, denoiser, an .item(). Its AdamW is torch's default, not the fused one, as there.
        With large it trains the text encoder, too, and there is no bare.

All run in float32, in one process that keeps freed memory (dreamloom.base.cpu), as dreamloom's commands do. They take
turns, because the speed of a shared machine changes by the minute; the ratios are medians over the rounds. Prints a
table, then a line of JSON.
"""

# ruff: noqa: E402
from dreamloom.base.cpu import keep_freed_memory

keep_freed_memory()  # before torch

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from bench.families import REAL, TINY, changed, denoiser_arguments
from bench.plain_step import PlainStep
from bench.random_models import random_model
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import CaptionBuilder
from dreamloom.train.data.dataset import Dataset, Sample, read_dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import BatchLoader
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.registry import FAMILIES
from dreamloom.train.loop.distributed import SINGLE_PROCESS
from dreamloom.train.loop.trainer import Trainer
from dreamloom.train.model.family import changing_text_encoders
from dreamloom.train.model.model import Model

BASE = str(Path(__file__).parents[1] / "demo" / "models" / "stable-diffusion")
CPU = torch.device("cpu")
SMALL = {
    "base": BASE, "resolution": 64, "bucket_reso_steps": 16, "batch_size": 16, "epochs": 1000,
    "text_encoder_learning_rate": 0, "precision": "fp32", "device": "cpu", "num_workers": 2,
}  # fmt: skip
WIDTHS = (128, 256, 512, 512)
"""Of the large UNet's blocks; Stable Diffusion 1.5's are 320, 640, 1280 and 1280."""

Turn = Callable[[int], None]
"""Takes a number of steps."""
Load = Callable[[], Model]
"""Loads the model; with random weights, the same each time."""


class Clock:
    """Seconds spent, by activity."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, activity: str) -> Iterator[None]:
        """Counts the seconds of the block."""
        start = time.perf_counter()
        yield
        self.spent[activity] += time.perf_counter() - start


def main() -> None:
    """Makes images in a temporary folder, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["small", "large"], default="small")
    parser.add_argument("--family", choices=list(FAMILIES), default="sd")
    parser.add_argument("--side", type=int, default=256, help="pixels of the large size")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10, help="steps of each, per round")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads; the loader has its own")
    parser.add_argument("--unclipped", action="store_true", help="bare and ours leave the gradient as it is")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    is_large, family = arguments.size == "large", arguments.family
    if is_large and family != "sd":
        parser.error("--size large is a model of the family sd; leave --family out")
    settings = {"resolution": arguments.side, "device": "cpu"} if is_large else dict(SMALL)
    settings |= {"max_grad_norm": None} if arguments.unclipped else {}
    config = TrainConfig(**{**FAMILIES[family].defaults({}), **settings})
    load: Load = partial(load_model, BASE, CPU)
    if is_large or family in TINY:
        large = changed(REAL["sd"], unet={"block_out_channels": WIDTHS})
        load = partial(random_model, family, large if is_large else TINY[family], CPU)
    clock = Clock()
    with tempfile.TemporaryDirectory() as place:
        images = make_images(Path(place) / "images", arguments.steps * config.batch_size, 2 * config.resolution)
        data = read_dataset(images, config.resolution, config.bucket_reso_steps, config.num_workers)
        turns: dict[str, Turn] = {} if is_large else {"bare": bare(config, load)}
        turns |= {
            "ours": ours(data, config, load, Path(place), clock),
            "fill": filling(data, config, load, Path(place)),
            "plain": plain(data, config, load, clock),
        }
        rounds, busy = measure(turns, arguments.rounds, arguments.steps)
    setting = {"family": family, "size": arguments.size, "max_grad_norm": config.max_grad_norm}
    report(rounds, busy, arguments.steps * config.batch_size, clock.spent, setting)


def measure(turns: dict[str, Turn], rounds: int, steps: int) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Returns, for each round, name → seconds; and the same of the processor's time, of all threads."""
    for turn in turns.values():
        turn(1)  # the first step allocates and compiles
    measured: list[dict[str, float]] = []
    busy: list[dict[str, float]] = []
    for _ in range(rounds):
        measured.append({})
        busy.append({})
        for name, turn in turns.items():
            start, start_of_cpu = time.perf_counter(), time.process_time()
            turn(steps)
            measured[-1][name], busy[-1][name] = time.perf_counter() - start, time.process_time() - start_of_cpu
    return measured, busy


def report(
    rounds: list[dict[str, float]],
    busy: list[dict[str, float]],
    images: int,
    spent: dict[str, float],
    setting: dict[str, Any],
) -> None:
    """Prints the result of a setting; `images` is the number of images in a turn."""
    print(f"{'':8}{'ms per image':>14}   of each round")
    for name in rounds[0]:
        each = [1000 * seconds[name] / images for seconds in rounds]
        print(f"{name:8}{median(each):14.2f}   {' '.join(f'{value:.2f}' for value in each)}")
    whole = sum(seconds["plain"] for seconds in rounds)
    shares = {name: round(spent[name] / whole, 3) for name in ("decode", "vae", "text")}
    waited = spent["data"] / sum(seconds["ours"] for seconds in rounds)
    print(
        f"of plain's time: {', '.join(f'{name} {share:.1%}' for name, share in shares.items())}; the rest is the step"
    )
    print(f"of ours: {waited:.1%} waiting for data; the rest is the step")
    result = {}
    if "bare" in rounds[0]:
        result["vs_bare_step"] = median(seconds["bare"] / seconds["ours"] for seconds in rounds)
        each = [seconds["bare"] / seconds["ours"] for seconds in busy]
        result["vs_bare_step_by_cpu"] = median(each)
        print(f"bare / ours by the processor's time: {' '.join(f'{value:.2f}' for value in each)}")
    result |= {
        "vs_plain": median(s["plain"] / s["ours"] for s in rounds),
        "first_epoch_vs_plain": median(s["plain"] / (s["fill"] + s["ours"]) for s in rounds),
        "data_wait": waited,
    }
    rounded = {name: round(value, 3) for name, value in result.items()}
    setting = {**setting, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**rounded, "plain_shares": shares, **setting}))


def fill_caches(model: Model, data: Dataset, config: TrainConfig, cache: Path) -> tuple[LatentCache, TextCache]:
    """Fills a cache in a new folder with the latents and text of a dataset."""
    latents = LatentCache(cache, model.vae)
    latents.add(data.samples, config.num_workers)
    texts = TextCache(model, cache, changing_text_encoders(config, model.family))
    texts.add(CaptionBuilder(config).fixed_captions(data.samples))
    return latents, texts


def filling(data: Dataset, config: TrainConfig, load: Load, place: Path) -> Turn:
    """Fills a new cache in each turn, with as many images as its steps show."""
    model = load()
    count = 0

    def turn(steps: int) -> None:
        nonlocal count
        count += 1
        shown = Dataset(data.folders, data.samples[: steps * config.batch_size], ())
        fill_caches(model, shown, config, place / f"fill {count}")

    return turn


def ours(data: Dataset, config: TrainConfig, load: Load, place: Path, clock: Clock) -> Turn:
    """The trainer's step and its loader, as in the training loop."""
    model = load()
    latents, texts = fill_caches(model, data, config, place / "latents")
    schedule = BatchSchedule(data, config)
    trainer = Trainer(model, schedule, config)
    groups = BatchLoader(data, latents, texts, config, pin=False).steps(
        map(SINGLE_PROCESS.shard, schedule.steps_after(0))
    )

    def turn(steps: int) -> None:
        for _ in range(steps):
            with clock.on("data"):
                group = next(groups)
            trainer.step(group)
            if trainer.num_steps % config.log_every_n_steps == 0:
                trainer.window.take()

    return turn


def bare(config: TrainConfig, load: Load) -> Turn:
    """Denoiser forward, backward, clipping where the config says so, and optimizer step, nothing else."""
    model = load()
    denoiser = model.denoiser.requires_grad_(True)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=config.learning_rate, fused=True)
    side = config.resolution // 8
    shape = (config.batch_size, denoiser.config.in_channels, side, side)
    noisy = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    noise, timesteps = torch.randn(shape), torch.randint(0, 1000, (config.batch_size,))
    tokens = model.tokens_for("text_encoder", [""]).shape[1]
    condition = denoiser_arguments(denoiser, config.batch_size, tokens)

    def turn(steps: int) -> None:
        for _ in range(steps):
            loss = F.mse_loss(denoiser(noisy, timestep=timesteps, **condition).sample, noise)
            torch.autograd.backward(loss)
            if config.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(denoiser.parameters(), config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return turn


def plain(data: Dataset, config: TrainConfig, load: Load, clock: Clock) -> Turn:
    """The steps of diffusers' training script."""
    model = load()
    learns = config.text_encoder_learning_rate > 0
    step = PlainStep(model, train_text=learns)
    sizes = torch.tensor([[config.resolution, config.resolution, 0, 0] + [config.resolution] * 2] * config.batch_size)
    order = iter(np.random.default_rng(0).integers(0, len(data.samples), (10_000, config.batch_size)))

    def turn(steps: int) -> None:
        for _ in range(steps):
            samples = [data.samples[index] for index in next(order)]
            with clock.on("decode"):
                pixels = torch.stack([_plain_image(sample, config.resolution) for sample in samples])
            with torch.no_grad(), clock.on("vae"):
                latents = model.scale_latents(model.vae.encode(pixels).latent_dist.sample())
            with torch.set_grad_enabled(learns), clock.on("text"):
                condition = model.encode(model.tokenize([sample.caption for sample in samples]), sizes)
            step(latents, condition)

    return turn


def _plain_image(sample: Sample, side: int) -> torch.Tensor:
    image = Image.open(sample.image.source.path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1


def make_images(folder: Path, count: int, side: int) -> Path:
    """Writes square JPEGs: smooth colors with grain, as photographs have."""
    rng = np.random.default_rng(0)
    (folder / "a").mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
        grain = rng.normal(0, 6, (side, side, 3))
        pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "a" / f"scene number {number % 40}_{number}.jpg", quality=92)
    return folder


if __name__ == "__main__":
    main()
