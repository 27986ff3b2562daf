"""Measures training on a GPU, one optimization after the other: SD 1.5's shape at 512 pixels, cached latents.

    python -m bench.gpu [--steps 50] [--batch 8] [--rows plain ours]
    python -m bench.gpu --tiny                    the demo's shape on a processor, to see that the script works

plain           float32, attention by matrix products, default AdamW, an .item() per step: diffusers' script
+bf16 +sdpa     autocast in bfloat16, and scaled dot product attention
+channels_last  weights and latents in channels_last
+compile        torch.compile of the UNet
ours            dreamloom's trainer: all of these, fused AdamW, no host sync (CUDA's sync debug mode is on)
largest         ours, with the batch doubled until the memory is full

Each row runs in its own process, so that none inherits another's memory, and a failing one does not stop the others.
Compilation takes a minute or two before the timing. MFU is relative to the bfloat16 matrix products that the card was
measured to do just before, at 2.0 TFLOP per image (forward and backward; counted in the tiny shape). Weights are
random, text is encoded once, and the whole UNet is trained. Prints a table, then a line of JSON.
"""

# ruff: noqa: E402
from dreamloom.base.cpu import keep_freed_memory

keep_freed_memory()  # before torch

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench import random_models
from bench.plain_step import PlainStep
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import CaptionBuilder
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import BatchLoader, LoadedBatch
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.sd.configs import CONFIGS
from dreamloom.train.loop.distributed import SINGLE_PROCESS
from dreamloom.train.loop.trainer import Trainer
from dreamloom.train.model.device import choose_device, peak_memory
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Condition

TINY = str(Path(__file__).parents[1] / "demo" / "models" / "stable-diffusion")
IMAGE_FLOPS = 2.0e12
ROWS = {
    "plain": {"precision": "fp32", "sdpa": False, "channels_last": False, "compile": False},
    "+bf16 +sdpa": {"precision": "bf16", "sdpa": True, "channels_last": False, "compile": False},
    "+channels_last": {"precision": "bf16", "sdpa": True, "channels_last": True, "compile": False},
    "+compile": {"precision": "bf16", "sdpa": True, "channels_last": True, "compile": True},
}
WARM_UP = 5
NAMES = [*ROWS, "ours", "largest"]
OUT_OF_MEMORY = 3
"""Exit code of a row that needs more memory than there is."""


def main() -> None:
    """Measures all rows; in a child process, one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50, help="timed steps")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tiny", action="store_true", help="the demo's shape at 64 pixels, on a processor")
    parser.add_argument("--compiled", action="store_true", help="also compile in the tiny shape")
    parser.add_argument("--rows", nargs="+", default=NAMES, choices=NAMES, help="only these")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        try:
            print(
                json.dumps(measure(arguments.row, arguments.batch, arguments.steps, arguments.tiny, arguments.compiled))
            )
        except torch.OutOfMemoryError:
            sys.exit(OUT_OF_MEMORY)
        return
    if not arguments.tiny and not torch.cuda.is_available():
        sys.exit("There is no GPU here; --tiny shows that the script works.")
    report(all_rows(arguments), arguments)


def all_rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields the result of each row that can be measured."""
    compiles = arguments.compiled or not arguments.tiny
    for name in NAMES[:-1]:
        if (
            name in arguments.rows
            and (name != "+compile" or compiles)
            and (row := child(name, arguments.batch, arguments))
        ):
            yield row
    batch, best = arguments.batch, None
    while "largest" in arguments.rows and not arguments.tiny and (row := child("ours", 2 * batch, arguments)):
        batch, best = 2 * batch, row
    if best:
        yield {**best, "row": "largest"}


def child(row: str, batch: int, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Measures a row in its own process; None if it fails, e.g. because the memory is too small."""
    command = [sys.executable, "-m", "bench.gpu", "--row", row, "--batch", str(batch), "--steps", str(arguments.steps)]
    command += ["--tiny"] * arguments.tiny + ["--compiled"] * arguments.compiled
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        code = process.returncode
        reason = "the memory is too small" if code == OUT_OF_MEMORY else f"it exited with {code}"
        print(f"{row} with batches of {batch}: {reason}", file=sys.stderr)
        return None
    return dict(json.loads(process.stdout.splitlines()[-1]))


def measure(row: str, batch: int, steps: int, tiny: bool, compiled: bool) -> dict[str, Any]:
    """Measures one row."""
    device = torch.device("cpu") if tiny else choose_device("cuda")
    rate = matmul_rate(device)
    side = 64 if tiny else 512
    config = TrainConfig(
        base=TINY if tiny else "random", resolution=side, bucket_reso_steps=8 if tiny else 64, batch_size=batch,
        epochs=100_000, text_encoder_learning_rate=0, precision="bf16", caption_dropout_rate=0,
        compile=compiled or not tiny, device=device.type,
    )  # fmt: skip
    model = load_model(TINY, device) if tiny else random_model(device)
    with tempfile.TemporaryDirectory() as place:
        data = read_dataset(
            make_images(Path(place), side, 2 * batch), side, config.bucket_reso_steps, config.num_workers
        )
        latents = LatentCache(None, model.vae)
        latents.add(data.samples, config.num_workers)
    texts = TextCache(model, None, changing=())
    texts.add(CaptionBuilder(config).fixed_captions(data.samples))
    schedule = BatchSchedule(data, config)
    groups = BatchLoader(data, latents, texts, config, pin=device.type == "cuda").steps(
        map(SINGLE_PROCESS.shard, schedule.steps_after(0))
    )
    flops = count_flops(model, next(groups)[0]) if tiny else IMAGE_FLOPS
    step = ours(model, schedule, config) if row == "ours" else plain(model, ROWS[row])
    if device.type == "cuda":
        torch.cuda.empty_cache()  # of what the VAE used
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(WARM_UP):
        step(next(groups))
    seconds, waited = timed(step, groups, steps, device, check=row == "ours")
    speed = steps * batch / seconds
    return {
        "row": row,
        "batch": batch,
        "images_per_second": speed,
        "mfu": speed * flops / rate,
        "data_wait": waited / seconds,
        "peak_memory": peak_memory(device),
        "matmul_tflops": rate / 1e12,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


Step = Callable[[list[LoadedBatch]], None]


def timed(
    step: Step, groups: Iterator[list[LoadedBatch]], steps: int, device: torch.device, check: bool
) -> tuple[float, float]:
    """Returns the seconds of some steps, and those spent waiting for data.

    Args:
        step: takes a step.
        groups: the batches of each step.
        steps: how many.
        device: is synchronized before and after.
        check: fail if a step waits for the GPU.
    """
    waited = 0.0
    synchronize(device)
    if check and device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    start = time.perf_counter()
    for _ in range(steps):
        wait_start = time.perf_counter()
        group = next(groups)
        waited += time.perf_counter() - wait_start
        step(group)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    synchronize(device)
    return time.perf_counter() - start, waited


def plain(model: Model, options: dict[str, Any]) -> Step:
    """The steps of diffusers' train_text_to_image.py, with some of the optimizations."""
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    unet, device = model.denoiser, model.device
    unet.set_attn_processor(AttnProcessor2_0() if options["sdpa"] else AttnProcessor())
    memory_format = torch.channels_last if options["channels_last"] else torch.contiguous_format
    unet.to(memory_format=memory_format)
    model.compiled_denoiser = torch.compile(unet, dynamic=False) if options["compile"] else None
    inner = PlainStep(model, torch.bfloat16 if options["precision"] == "bf16" else torch.float32, memory_format)

    def step(group: list[LoadedBatch]) -> None:
        (batch,) = group
        mean, deviation = batch.posteriors.to(device).float().unbind(1)
        inner(model.scale_latents(mean + deviation * torch.randn_like(mean)), _condition(model, batch))

    return step


def ours(model: Model, schedule: BatchSchedule, config: TrainConfig) -> Step:
    """The trainer's step; its losses are not read."""
    return Trainer(model, schedule, config).step


def random_model(device: torch.device, widths: tuple[int, ...] = (320, 640, 1280, 1280)) -> Model:
    """Makes a model of Stable Diffusion 1.5's shape with random weights; `widths` are those of the UNet's blocks."""
    configs = CONFIGS[768]  # by the width of the text encoder
    return random_models.random_model({**configs, "unet": {**configs["unet"], "block_out_channels": widths}}, device)


def _condition(model: Model, batch: LoadedBatch) -> Condition:
    to = partial(Tensor.to, device=model.device)
    return model.encode(batch.text.map(to), batch.sizes.to(model.device))


def matmul_rate(device: torch.device) -> float:
    """Measures the FLOP per second of a large matrix product in bfloat16."""
    side, times = (8192, 30) if device.type == "cuda" else (1024, 5)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        a @ b
    synchronize(device)
    return 2 * side**3 * times / (time.perf_counter() - start)


def count_flops(model: Model, batch: LoadedBatch) -> float:
    """Counts the FLOP per image, taking backward as twice forward."""
    from torch.utils.flop_counter import FlopCounterMode

    noisy = batch.posteriors[:1, 0].float()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.predict(noisy, torch.zeros(1, dtype=torch.long), _condition(model, batch).map(itemgetter(slice(1))))
    return float(3 * counter.get_total_flops())


def synchronize(device: torch.device) -> None:
    """Waits for the GPU, if the device is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_images(folder: Path, side: int, count: int) -> Path:
    """Writes images of smooth colors, in one bucket."""
    rng = np.random.default_rng(0)
    (folder / "a").mkdir()
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
        coarse.save(folder / "a" / f"scene number {number}_{number}.jpg")
    return folder


def report(measured: Iterator[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Prints the rows as they are measured."""
    print(f"{'':16}{'batch':>6}{'images/s':>10}{'× first':>9}{'MFU':>8}{'data wait':>11}{'peak GB':>9}")
    rows: list[dict[str, Any]] = []
    for row in measured:
        rows.append(row)
        speed, first = row["images_per_second"], rows[0]["images_per_second"]
        print(
            f"{row['row']:16}{row['batch']:6}{speed:10.2f}{speed / first:9.2f}{row['mfu']:8.1%}{row['data_wait']:11.2%}"
            f"{row['peak_memory'] / 1e9:9.1f}",
            flush=True,
        )
    print(json.dumps({"rows": rows, "shape": "tiny" if arguments.tiny else "sd 1.5", "torch": torch.__version__}))


if __name__ == "__main__":
    main()
