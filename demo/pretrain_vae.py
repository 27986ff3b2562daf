"""Trains the demo's AutoencoderKL: 64 × 64 pixels to 8 × 8 latents of 8 channels and back.

Besides scenes it sees random silhouettes in random colors, so that its latents can represent shapes that are held out.
The UNet never sees those images.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dreamloom.base.progress import Progress, silent
from dreamloom.demo.pretrain_loop import Schedule, device, fit, seeded
from dreamloom.demo.world import BACKGROUNDS, COLORS, STYLES, draw, random_scene, render

SCHEDULE = Schedule(steps=3400, batch=32, rate=2e-3, average=0.998)
NUM_IMAGES = 24_000
KL_WEIGHT = 3e-4
SCALING = 0.5
"""The scaling factor in the VAE's config: latents times this have standard deviation 1."""


def make_vae(seed: int = 0) -> Any:
    """Returns an untrained AutoencoderKL: factor 8, 8 latent channels, 1.7 million weights."""
    from diffusers import AutoencoderKL

    widths = (16, 32, 64, 96)
    with seeded(seed):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            block_out_channels=widths,
            layers_per_block=1,
            latent_channels=8,
            norm_num_groups=8,
            sample_size=64,
        )
    return vae.to(device(), memory_format=torch.channels_last)


def train_vae(
    vae: Any,
    work: Path,
    seed: int,
    schedule: Schedule = SCHEDULE,
    num_images: int = NUM_IMAGES,
    progress: Progress = silent,
) -> list[tuple[int, float]]:
    """Trains it in place, then standardizes its latents."""
    data = torch.from_numpy(draw_images(num_images, seed))

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(data), (schedule.batch,))
        target = to_unit(data[chosen])
        latents = vae.encode(target).latent_dist
        return vae_loss(vae.decode(latents.sample()).sample, target, latents.kl().mean() / latents.mean[0].numel())

    curve = fit("vae", {"vae": vae}, loss, schedule, work, seed, progress)
    standardize_latents(vae, data[:1024])
    return curve


@torch.no_grad()
def standardize_latents(vae: Any, data: Tensor) -> None:
    """Gives every latent channel mean 0 and standard deviation 1 / SCALING, from which a UNet learns best.

    The change is folded into the two 1 × 1 convolutions at the latents, so the decoded images stay the same.
    """
    means = torch.cat([vae.encode(to_unit(part)).latent_dist.mean for part in torch.split(data, 128)])
    channels = means.shape[1]
    center, factor = means.mean(dim=(0, 2, 3)), 1 / SCALING / means.std(dim=(0, 2, 3))
    into, out = vae.quant_conv, vae.post_quant_conv
    out.bias += (out.weight[:, :, 0, 0] * center).sum(dim=1)
    out.weight /= factor[None, :, None, None]
    into.weight[:channels] *= factor[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - center) * factor
    into.bias[channels:] += 2 * factor.log()
    vae.register_to_config(scaling_factor=SCALING)


def vae_loss(made: Tensor, target: Tensor, kl: Tensor) -> Tensor:
    """L1 of pixels, of their differences to the right and down (edges), of 4 × 4 means, squares (hues), and KL."""
    difference = made - target
    edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    hues = F.avg_pool2d(difference, 4).abs().mean() + 2 * difference.square().mean()
    return difference.abs().mean() + edges + hues + KL_WEIGHT * kl


def to_unit(images: Tensor) -> Tensor:
    """Converts uint8 [n, h, w, 3] to float [n, 3, h, w] from -1 to 1, channels last, on the training device."""
    return images.to(device()).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Converts what `to_unit` gives back to numpy."""
    values = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return values.permute(0, 2, 3, 1).cpu().numpy()


def draw_images(count: int, seed: int) -> NDArray[np.uint8]:
    """Draws uint8 [count, 64, 64, 3]: 70 % scenes without held-out combinations, the others random silhouettes."""
    rng = np.random.default_rng([seed, 10])
    return np.stack([render(random_scene(rng)) if rng.random() < 0.7 else _silhouettes(rng) for _ in range(count)])


def _silhouettes(rng: np.random.Generator) -> NDArray[np.uint8]:
    is_world_color = rng.random() < 0.7
    ground = rng.choice(list(BACKGROUNDS.values())) if is_world_color else rng.uniform(0, 255, 3)
    canvas = np.empty((64, 64, 3), np.float32)
    canvas[:] = ground
    style = STYLES[rng.integers(len(STYLES))]
    for _ in range(rng.integers(1, 3)):
        paint = rng.choice(list(COLORS.values())) if rng.random() < 0.7 else rng.uniform(0, 255, 3)
        outline = _silhouette(rng) * rng.uniform(0.18, 0.36) + rng.uniform(-0.25, 0.25, 2)
        draw(canvas, outline, (int(paint[0]), int(paint[1]), int(paint[2])), style)
    return np.asarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))


def _silhouette(rng: np.random.Generator) -> NDArray[np.float64]:
    """The outline of a few overlapping thick strokes, boxes and discs, within [-1, 1]."""
    import cv2

    mask = np.zeros((128, 128), np.uint8)
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(4)
        a, b = rng.integers(20, 108, (2, 2)).tolist()
        if kind == 0:
            cv2.line(mask, a, b, 255, int(rng.integers(16, 44)))
        elif kind == 1:
            cv2.rectangle(mask, a, b, 255, -1)
        elif kind == 2:
            axes = int(rng.integers(12, 44)), int(rng.integers(12, 44))
            cv2.ellipse(mask, a, axes, float(rng.integers(180)), 0, 360, 255, -1)
        else:
            corners = rng.integers(8, 120, (int(rng.integers(3, 7)), 2))
            cv2.fillPoly(mask, [corners.astype(np.int32)], 255)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(contours, key=cv2.contourArea)[:, 0].astype(np.float64)
    low, high = outline.min(axis=0), outline.max(axis=0)
    return np.asarray((outline - (low + high) / 2) / max(1.0, float((high - low).max())) * 2)
