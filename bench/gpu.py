"""Measures training on a GPU, one optimization after the other: real shapes, random weights, cached latents.

    python -m bench.gpu [--family sd] [--steps 50] [--batch 8] [--rows plain ours]
    python -m bench.gpu --tiny                    a tiny shape on a processor, to see that the script works

sd is Stable Diffusion 1.5 at 512 pixels, sdxl XL, and sd3 3.5 medium without T5, both at 1024 pixels.

plain           float32, attention by matrix products, default AdamW, an .item() per step: diffusers' script. Of sd3,
                diffusers has no other than scaled dot product attention
+bf16 +sdpa     autocast in bfloat16, and scaled dot product attention
+channels_last  weights and latents in channels_last
+compile        torch.compile of the denoiser
ours            dreamloom's trainer: all of these, fused AdamW, no host sync (CUDA's sync debug mode is on)
largest         ours, with the batch doubled until the memory is full
12gb, 24gb ...  the trainer with a preset of the family, and its batch

Each row runs in its own process, so that none inherits another's memory, and a failing one does not stop the others.
Compilation takes a minute or two before the timing. MFU is relative to the bfloat16 matrix products that the card was
measured to do just before; the FLOP of an image, forward and backward of the denoiser, are counted on tensors without
memory (adapters and recomputation count as if all weights learned once). Text is encoded once, and but for the presets
the whole denoiser is trained. Prints a table, then a line of JSON.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.families import REAL, TINY, Configs
from bench.flops import count_flops, matmul_rate, synchronize
from bench.plain_step import PlainStep
from bench.random_models import random_model
from dreamloom.train.config import PRESETS, TrainConfig
from dreamloom.train.data.captions import CaptionBuilder
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import BatchLoader, LoadedBatch
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.registry import FAMILIES
from dreamloom.train.families.sd3.family import PRESETS as SD3_PRESETS
from dreamloom.train.families.sdxl.family import PRESETS as SDXL_PRESETS
from dreamloom.train.loop.distributed import SINGLE_PROCESS
from dreamloom.train.loop.trainer import Trainer
from dreamloom.train.model.device import choose_device, peak_memory
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Condition

DEMO = str(Path(__file__).parents[1] / "demo" / "models" / "stable-diffusion")
SIDES = {"sd": 512, "sdxl": 1024, "sd3": 1024}
BATCHES = {"sd": 8, "sdxl": 2, "sd3": 2}
FAMILY_PRESETS = {"sd": PRESETS, "sdxl": SDXL_PRESETS, "sd3": SD3_PRESETS}
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
    parser.add_argument("--family", choices=list(FAMILIES), default="sd")
    parser.add_argument("--steps", type=int, default=50, help="timed steps")
    parser.add_argument("--batch", type=int, help="8, or 2 of sdxl and sd3")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape at 64 pixels, on a processor")
    parser.add_argument("--compiled", action="store_true", help="also compile in the tiny shape")
    parser.add_argument("--rows", nargs="+", help="only these")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.batch = arguments.batch or BATCHES[arguments.family]
    if arguments.row:
        try:
            print(json.dumps(measure(arguments.row, arguments)))
        except torch.OutOfMemoryError:
            sys.exit(OUT_OF_MEMORY)
        return
    names = [*NAMES, *FAMILY_PRESETS[arguments.family]]
    arguments.rows = arguments.rows or (NAMES if arguments.tiny else names)
    if unknown := set(arguments.rows) - set(names):
        parser.error(f"there is no row {', '.join(unknown)}; choose from {', '.join(names)}")
    if not arguments.tiny and not torch.cuda.is_available():
        sys.exit("There is no GPU here; --tiny shows that the script works.")
    report(all_rows(arguments), arguments)


def all_rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields the result of each row that can be measured."""
    compiles = arguments.compiled or not arguments.tiny
    for name in [name for name in arguments.rows if name != "largest" and (name != "+compile" or compiles)]:
        if row := child(name, arguments.batch, arguments):
            yield row
    batch, best = arguments.batch, None
    while "largest" in arguments.rows and not arguments.tiny and (row := child("ours", 2 * batch, arguments)):
        batch, best = 2 * batch, row
    if best:
        yield {**best, "row": "largest"}


def child(row: str, batch: int, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Measures a row in its own process; None if it fails, e.g. because the memory is too small."""
    command = [sys.executable, "-m", "bench.gpu", "--family", arguments.family, "--row", row]
    command += ["--batch", str(batch), "--steps", str(arguments.steps)]
    command += ["--tiny"] * arguments.tiny + ["--compiled"] * arguments.compiled
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        code = process.returncode
        reason = "the memory is too small" if code == OUT_OF_MEMORY else f"it exited with {code}"
        print(f"{row} with batches of {batch}: {reason}", file=sys.stderr)
        return None
    return dict(json.loads(process.stdout.splitlines()[-1]))


def measure(row: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures one row."""
    device = torch.device("cpu") if arguments.tiny else choose_device("cuda")
    rate = matmul_rate(device)
    config, model = make_config(row, device, arguments), make_model(device, arguments)
    images = config.batch_size * config.gradient_accumulation_steps
    side = config.resolution
    with tempfile.TemporaryDirectory() as place:
        data = read_dataset(
            make_images(Path(place), side, 2 * images), side, config.bucket_reso_steps, config.num_workers
        )
        latents = LatentCache(None, model.vae)
        latents.add(data.samples, config.num_workers)
    texts = TextCache(model, None, changing=())
    texts.add(CaptionBuilder(config).fixed_captions(data.samples))
    schedule = BatchSchedule(data, config)
    groups = BatchLoader(data, latents, texts, config, pin=device.type == "cuda").steps(
        map(SINGLE_PROCESS.shard, schedule.steps_after(0))
    )
    flops = count_flops(model, side)
    step = plain(model, ROWS[row]) if row in ROWS else ours(model, schedule, config)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # of what the VAE used
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(WARM_UP):
        step(next(groups))
    seconds, waited = timed(step, groups, arguments.steps, device, check=row == "ours")
    speed = arguments.steps * images / seconds
    return {
        "row": row,
        "batch": config.batch_size,
        "images_per_second": speed,
        "tflop_per_image": flops / 1e12,
        "mfu": speed * flops / rate,
        "data_wait": waited / seconds,
        "peak_memory": peak_memory(device),
        "matmul_tflops": rate / 1e12,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def make_config(row: str, device: torch.device, arguments: argparse.Namespace) -> TrainConfig:
    """Makes the trainer's config: the family's defaults, what is measured, and what a preset sets."""
    preset = FAMILY_PRESETS[arguments.family].get(row, {})
    settings = {
        "base": "random", "resolution": 64 if arguments.tiny else SIDES[arguments.family],
        "bucket_reso_steps": 16 if arguments.tiny else 64, "batch_size": arguments.batch, "epochs": 100_000,
        "text_encoder_learning_rate": 0, "precision": "bf16", "caption_dropout_rate": 0,
        "compile": arguments.compiled or not arguments.tiny, "device": device.type,
    }  # fmt: skip
    return TrainConfig(**{**FAMILIES[arguments.family].defaults({}), **settings, **preset})


def make_model(device: torch.device, arguments: argparse.Namespace) -> Model:
    """Makes the model that is trained."""
    if arguments.tiny and arguments.family not in TINY:
        return load_model(DEMO, device)
    configs: Configs = (TINY if arguments.tiny else REAL)[arguments.family]
    return random_model(arguments.family, configs, device)


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
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    denoiser, device = model.denoiser, model.device
    if isinstance(denoiser, UNet2DConditionModel):
        denoiser.set_attn_processor(AttnProcessor2_0() if options["sdpa"] else AttnProcessor())
    memory_format = torch.channels_last if options["channels_last"] else torch.contiguous_format
    denoiser.to(memory_format=memory_format)
    model.compiled_denoiser = torch.compile(denoiser, dynamic=False) if options["compile"] else None
    inner = PlainStep(model, torch.bfloat16 if options["precision"] == "bf16" else torch.float32, memory_format)

    def step(group: list[LoadedBatch]) -> None:
        (batch,) = group
        mean, deviation = batch.posteriors.to(device).float().unbind(1)
        inner(model.scale_latents(mean + deviation * torch.randn_like(mean)), _condition(model, batch))

    return step


def ours(model: Model, schedule: BatchSchedule, config: TrainConfig) -> Step:
    """The trainer's step; its losses are not read."""
    return Trainer(model, schedule, config).step


def _condition(model: Model, batch: LoadedBatch) -> Condition:
    to = partial(Tensor.to, device=model.device)
    return model.encode(batch.text.map(to), batch.sizes.to(model.device))


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
    shape = {"family": arguments.family, "shape": "tiny" if arguments.tiny else "real"}
    print(json.dumps({"rows": rows, **shape, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
