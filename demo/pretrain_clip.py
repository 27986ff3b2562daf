"""Trains the demo's CLIP (open_clip) on the world's scenes, and the linear aesthetic head over its embeddings."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dreamloom.base.files.atomic import commit, commit_folder, commit_json
from dreamloom.base.progress import Progress, silent
from dreamloom.demo.pretrain_diffusion import tokenize
from dreamloom.demo.pretrain_loop import Schedule, device, fit, half_where_fast, seeded
from dreamloom.demo.pretrain_words import LENGTH, clip_tokenizer, save_clip_tokenizer
from dreamloom.demo.world import Scene, aesthetic, caption, random_scene, render

SCHEDULE = Schedule(steps=1200, batch=64, rate=1e-3, decay=0.05, average=0.99)
NUM_IMAGES = 20_000
PREPROCESS: dict[str, Any] = {
    "size": 64,
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
"""Preprocessing in open_clip's form, with the mean and standard deviation of OpenAI's models."""


def model_config() -> dict[str, Any]:
    """Returns the model's sizes in open_clip's form."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "patch_size": 8, "layers": 3, "width": 128, "head_width": 32},
        "text_cfg": {
            "context_length": LENGTH,
            "vocab_size": len(clip_tokenizer()),
            "width": 128,
            "heads": 4,
            "layers": 2,
            "hf_tokenizer_name": ".",
        },
    }


def make_clip(seed: int = 0) -> Any:
    """Returns an untrained open_clip model: 64 pixels in patches of 8, 3 + 2 layers, 128 wide, embeddings of 128."""
    import open_clip

    with seeded(seed):
        return open_clip.CLIP(**model_config()).to(device())


def train_clip(
    clip: Any,
    work: Path,
    seed: int,
    schedule: Schedule = SCHEDULE,
    num_images: int = NUM_IMAGES,
    progress: Progress = silent,
) -> list[tuple[int, float]]:
    """Trains it in place with the contrastive loss; equal captions in a batch count as one."""
    scenes, data = scenes_and_images(num_images, seed)
    tokens = tokenize(clip_tokenizer(), [caption(scene) for scene in scenes])

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(data), (schedule.batch,))
        text = tokens[chosen].to(device())
        with half_where_fast():
            image_side, text_side, scale = clip(normalized(data[chosen], jitter=True), text)[:3]
        same = (text[:, None] == text[None]).all(dim=2).float()
        wanted = same / same.sum(dim=1, keepdim=True)
        logits = scale.clamp(max=100) * image_side.float() @ text_side.float().T
        return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2

    return fit("clip", {"clip": clip}, loss, schedule, work, seed, progress)


def scenes_and_images(count: int, seed: int) -> tuple[list[Scene], Tensor]:
    """Returns scenes without held-out combinations, and their images, uint8 [count, 64, 64, 3]."""
    rng = np.random.default_rng([seed, 30])
    scenes = [random_scene(rng) for _ in range(count)]
    return scenes, torch.from_numpy(np.stack([render(scene) for scene in scenes]))


def normalized(images: Tensor, jitter: bool = False) -> Tensor:
    """Converts uint8 [n, 64, 64, 3] to float [n, 3, 64, 64] as CLIP and BLIP read it; jitter varies light and noise."""
    mean, std = (torch.tensor(PREPROCESS[key], device=device()) for key in ("mean", "std"))
    values = images.to(device()).float() / 255
    if jitter:
        values = values * torch.empty(len(values), 1, 1, 1, device=device()).uniform_(0.95, 1.05)
        values = values + 0.02 * torch.randn_like(values)
    return ((values - mean) / std).permute(0, 3, 1, 2)


def embed(clip: Any, images: Tensor) -> Tensor:
    """Returns the unit embeddings of images, float32 [n, 128], on the CPU."""
    with torch.no_grad():
        parts = [clip.encode_image(normalized(part), normalize=True) for part in torch.split(images, 256)]
    return torch.cat(parts).float().cpu()


def fit_head(clip: Any, seed: int, num_images: int = 6000) -> tuple[NDArray[np.float32], float]:
    """Fits a linear head that predicts `world.aesthetic` from unit embeddings (ridge regression): weight [d], bias."""
    scenes, data = scenes_and_images(num_images, seed + 1)
    x = embed(clip, data).double().numpy()
    y = np.array([aesthetic(scene) for scene in scenes])
    centered = x - x.mean(axis=0)
    weight = np.linalg.solve(
        centered.T @ centered + 1e-3 * len(x) / x.shape[1] * np.eye(x.shape[1]), centered.T @ (y - y.mean())
    )
    return weight.astype(np.float32), float(y.mean() - x.mean(axis=0) @ weight)


def export_clip(clip: Any, folder: Path) -> None:
    """Writes the folder that open_clip loads as `local-dir:<folder>`: config, fp16 weights, tokenizer."""
    from safetensors.torch import save_file

    with commit_folder(folder) as temporary:
        config = {"model_cfg": model_config(), "preprocess_cfg": PREPROCESS}
        commit_json(temporary / "open_clip_config.json", config)
        weights = {name: value.half().cpu().contiguous() for name, value in clip.state_dict().items()}
        save_file(weights, temporary / "open_clip_model.safetensors")
        save_clip_tokenizer(temporary)


def export_head(weight: NDArray[np.float32], bias: float, path: Path) -> None:
    """Writes the head in the form of LAION's V1 heads: `weight` [1, d] and `bias` [1], float32."""
    from safetensors.torch import save_file

    with commit(path) as temporary:
        save_file({"weight": torch.from_numpy(weight)[None], "bias": torch.tensor([bias])}, temporary)
