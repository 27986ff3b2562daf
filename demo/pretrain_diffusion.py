"""Trains the demo's UNet and its text encoder on the world's scenes, and writes the Stable Diffusion pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamloom.base.files.atomic import commit, commit_folder
from dreamloom.base.progress import Progress, silent
from dreamloom.demo.pretrain_loop import Schedule, device, fit, seeded
from dreamloom.demo.pretrain_vae import to_unit
from dreamloom.demo.pretrain_words import LENGTH, clip_tokenizer, save_clip_tokenizer
from dreamloom.demo.world import Scene, caption, random_scene, render

SCHEDULE = Schedule(steps=2400, batch=64, rate=1.5e-3, average=0.999)
NUM_IMAGES = 50_000
NO_CAPTION = 0.1
"""Share of captions that are left empty, for classifier-free guidance."""
SNR_LIMIT = 5.0
"""γ of min-SNR weighting (arXiv 2303.09556)."""


def make_text_encoder(seed: int = 0) -> Any:
    """Returns an untrained CLIPTextModel: 2 layers, 128 wide."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with seeded(seed):
        return CLIPTextModel(config).to(device())


def make_unet(seed: int = 0) -> Any:
    """Returns an untrained UNet2DConditionModel over 8 × 8 latents of 8 channels, 64 and 112 wide."""
    from diffusers import UNet2DConditionModel

    with seeded(seed):
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=8,
            out_channels=8,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(64, 112),
            layers_per_block=1,
            cross_attention_dim=128,
            attention_head_dim=4,
            norm_num_groups=16,
        )
    return unet.to(device(), memory_format=torch.channels_last)


def make_scheduler() -> Any:
    """Returns DDIM with Stable Diffusion's noise schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def train_diffusion(
    unet: Any,
    text_encoder: Any,
    vae: Any,
    work: Path,
    seed: int,
    schedule: Schedule = SCHEDULE,
    num_images: int = NUM_IMAGES,
    progress: Progress = silent,
) -> list[tuple[int, float]]:
    """Trains UNet and text encoder in place, on latents of the trained VAE."""
    scenes = draw_scenes(num_images, seed)
    latents = _latents(scenes, vae, work / "latents.npy")
    tokens = tokenize(clip_tokenizer(), [caption(scene) for scene in scenes])
    nothing = tokenize(clip_tokenizer(), [""])
    noiser = make_scheduler()
    kept = noiser.alphas_cumprod.to(device())
    weight = (kept / (1 - kept)).clamp(max=SNR_LIMIT) / (kept / (1 - kept))

    def loss(step: int) -> Tensor:
        count = schedule.batch
        chosen = torch.randint(len(latents), (count,))
        clean = latents[chosen].to(device()).float().contiguous(memory_format=torch.channels_last)
        text = torch.where(torch.rand(count, 1) < NO_CAPTION, nothing, tokens[chosen]).to(device())
        times = ((torch.arange(count) + torch.rand(count)) / count * len(kept)).long().to(device())
        noise = torch.randn_like(clean)
        guess = unet(noiser.add_noise(clean, noise, times), times, text_encoder(text)[0]).sample
        error = F.mse_loss(guess, noise, reduction="none").mean(dim=(1, 2, 3))
        return torch.mean(weight[times] * error)

    return fit("diffusion", {"unet": unet, "text": text_encoder}, loss, schedule, work, seed, progress)


def tokenize(tokenizer: Any, texts: list[str]) -> Tensor:
    """Returns token IDs, int64 [n, LENGTH]."""
    batch = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return torch.as_tensor(batch.input_ids)


def draw_scenes(count: int, seed: int) -> list[Scene]:
    """Returns scenes without held-out combinations, half of them with two objects, which are harder."""
    rng = np.random.default_rng([seed, 20])
    return [random_scene(rng, count=int(rng.integers(1, 3))) for _ in range(count)]


def _latents(scenes: list[Scene], vae: Any, store: Path) -> Tensor:
    """Returns scaled latents of the scenes, float16 [n, 8, 8, 8], and keeps them in `store` for a resumed run."""
    if store.exists():
        return torch.from_numpy(np.load(store))
    parts = []
    with torch.no_grad():
        for start in range(0, len(scenes), 250):
            images = np.stack([render(scene) for scene in scenes[start : start + 250]])
            mean = vae.encode(to_unit(torch.from_numpy(images))).latent_dist.mean
            parts.append((mean * vae.config.scaling_factor).half().cpu())
    latents = torch.cat(parts)
    with commit(store) as temporary, temporary.open("wb") as stream:
        np.save(stream, latents.numpy())
    return latents


def export_pipeline(vae: Any, unet: Any, text_encoder: Any, folder: Path) -> None:
    """Writes the StableDiffusionPipeline folder, fp16 safetensors."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=_half(vae),
        unet=_half(unet),
        text_encoder=_half(text_encoder),
        tokenizer=clip_tokenizer(),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with commit_folder(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        save_clip_tokenizer(temporary / "tokenizer")


def _half(model: Any) -> Any:
    import copy

    return copy.deepcopy(model).cpu().to(torch.float16, memory_format=torch.contiguous_format)
