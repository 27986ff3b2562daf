"""The trainer beside a bare step and beside a plain loop, on the same tiny model and the same pictures.

    python -m bench.train [--rounds 6] [--steps 10]

bare    UNet forward, backward and optimizer step on tensors already in memory: the limit.
ours    train/, latents and text cached.
plain   what diffusers' train_text_to_image.py does at every step: decode, VAE, text encoder, an .item().

The three take turns, a few steps each, because a shared machine's speed changes by the minute. Prints JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from base.progress import silent
from train.batches import Course
from train.cache import LatentCache
from train.config import TrainConfig
from train.dataset import Dataset, read_dataset
from train.loader import Loader
from train.model import load_model
from train.text import Texts
from train.trainer import Trainer

PICTURES = 320
BATCH = 16
SIDE = 64


def main() -> None:
    """Makes a model and pictures in a temporary folder, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10, help="steps of each, in each round")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        base, folder = make_model(Path(place) / "base"), make_pictures(Path(place) / "pictures")
        config = TrainConfig(
            base=base, resolution=SIDE, quantum=16, batch=BATCH, epochs=1000, text_encoder_rate=0, device="cpu"
        )
        data = read_dataset(folder, SIDE, 16, config.workers)
        ours, filling = make_ours(data, config, Path(place) / "latents")
        plain = make_plain(data, config)
        loops = {"bare": make_bare(config), "ours": ours, "plain": plain}
        seconds = measure(loops, given.rounds, given.steps)
    images = given.rounds * given.steps * BATCH
    rate = {name: images / sum(taken) for name, taken in seconds.items()}
    first_epoch = PICTURES / (filling + PICTURES / rate["ours"])
    report = {
        "images_per_second": {name: round(value, 2) for name, value in rate.items()},
        "vs_bare_step": round(rate["ours"] / rate["bare"], 3),
        "vs_plain": round(rate["ours"] / rate["plain"], 3),
        "first_epoch_vs_plain": round(first_epoch / rate["plain"], 3),
        "seconds_to_fill_the_cache": round(filling, 2),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(json.dumps(report, indent=2))


def measure(loops: dict[str, Callable[[], None]], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of each loop in each round."""
    for loop in loops.values():
        loop()  # the first step makes what later ones find
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            began = time.perf_counter()
            for _ in range(steps):
                loop()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def make_ours(data: Dataset, config: TrainConfig, cache: Path) -> tuple[Callable[[], None], float]:
    """A step of the trainer, and the seconds it took to fill the cache."""
    model = load_model(config.base, torch.device("cpu"))
    latents = LatentCache(cache, model.vae)
    began = time.perf_counter()
    latents.add(data.samples, config.workers, silent)
    texts = Texts(model, cache, frozen=True)
    texts.add(["", *(sample.caption for sample in data.samples)])
    filling = time.perf_counter() - began
    course = Course(data, config)
    loader = Loader(data, latents, texts, config, pin=False)
    trainer = Trainer(model, course.images, config)
    groups = loader.steps(course.after(0))

    def step() -> None:
        trainer.step(next(groups))
        if trainer.steps_done % config.log_every == 0:
            trainer.window.take()

    return step, filling


def make_bare(config: TrainConfig) -> Callable[[], None]:
    """UNet forward, backward and optimizer step, nothing else."""
    unet = load_model(config.base, torch.device("cpu")).unet.requires_grad_(True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.learning_rate, fused=True)
    shape = (BATCH, 4, SIDE // 8, SIDE // 8)
    noisy = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    noise, states = torch.randn(shape), torch.randn(BATCH, 24, 96)
    times = torch.randint(0, 1000, (BATCH,))

    def step() -> None:
        loss = F.mse_loss(unet(noisy, times, states, return_dict=False)[0], noise)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def make_plain(data: Dataset, config: TrainConfig) -> Callable[[], None]:
    """diffusers' training script, by its steps."""
    model = load_model(config.base, torch.device("cpu"))
    unet = model.unet.requires_grad_(True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.learning_rate)
    order = np.random.default_rng(0).integers(0, len(data.samples), 1_000_000).reshape(-1, BATCH)
    turn = iter(order)

    def step() -> None:
        chosen = [data.samples[place] for place in next(turn)]
        pictures = torch.stack([_plain_picture(sample.path) for sample in chosen])
        with torch.no_grad():
            latents = model.vae.encode(pictures).latent_dist.sample() * model.vae.config.scaling_factor
            states = model.states(model.tokens([sample.caption for sample in chosen]))
        noise = torch.randn_like(latents)
        times = torch.randint(0, 1000, (BATCH,))
        kept = model.alphas_cumprod[times][:, None, None, None]
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        loss = F.mse_loss(unet(noisy, times, states, return_dict=False)[0], noise)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def _plain_picture(path: Path) -> torch.Tensor:
    image = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1


def make_pictures(folder: Path) -> Path:
    """JPEGs of 128 pixels: smooth colours with some grain, as photographs have."""
    rng = np.random.default_rng(0)
    (folder / "a").mkdir(parents=True)
    for number in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((128, 128))
        grain = rng.normal(0, 6, (128, 128, 3))
        picture = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / "a" / f"scene number {number % 40}_{number}.jpg", quality=92)
    return folder


def make_model(folder: Path) -> str:
    """The shape of the demo's first model: a UNet of 4.2 M parameters over 8 × 8 latents, a VAE of 1 M."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tokenizer = _byte_tokenizer()
    StableDiffusionPipeline(
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(64, 128),
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
            layers_per_block=1,
            cross_attention_dim=96,
            attention_head_dim=8,
        ),
        vae=AutoencoderKL(
            block_out_channels=(16, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=8,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=96,
                intermediate_size=384,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=24,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return str(folder)


def _byte_tokenizer() -> Any:
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=24)


if __name__ == "__main__":
    main()
