"""Pictures of the same prompts in the same noise, drawn by both models, and how far each pair lies apart."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dreamloom.base.files.atomic import commit
from dreamloom.base.models.clip import Clip, load_clip
from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.base.models.device import prepare_device
from dreamloom.base.progress import Progress, silent
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.audit.pair import Pair
from dreamloom.train.audit.results import PicturePair
from dreamloom.train.audit.statistics import Floats
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.evaluate.drawings import Drawing
from dreamloom.train.evaluate.sample import draw_images

SIDE = 64
"""Pixels of the sides to which pictures are shrunk before their colors are compared."""


def picture_prompts(vocabulary: Sequence[str], count: int) -> list[str]:
    """Chooses prompts spread evenly over a vocabulary; where it has fewer, each is drawn from several noises."""
    if count <= len(vocabulary):
        return [vocabulary[place * len(vocabulary) // count] for place in range(count)]
    return [vocabulary[place % len(vocabulary)] for place in range(count)]


def picture_files(folder: Path, count: int) -> dict[str, list[Path]]:
    """Returns where the pictures lie: base or model → the files, by number."""
    return {which: [folder / f"{number:05}-{which}.png" for number in range(count)] for which in ("base", "model")}


def draw_pictures(pair: Pair, prompts: Sequence[str], folder: Path, config: AuditConfig, progress: Progress) -> None:
    """Draws the pictures that are not in the folder yet, batch by batch, so that a killed audit goes on."""
    files = picture_files(folder, len(prompts))
    batches = [slice(start, start + config.batch_size) for start in range(0, len(prompts), config.batch_size)]
    total = 2 * len(prompts)
    for batch in batches:
        for which, model in (("base", pair.base), ("model", pair.model)):
            done = 2 * batch.start + (len(prompts[batch]) if which == "model" else 0)
            progress(done, total, "drawing pictures")
            if all(file.exists() for file in files[which][batch]):
                continue
            drawings = [_drawing(prompts[number], number, config) for number in range(len(prompts))[batch]]
            images = draw_images(model, drawings, config, silent, "")
            for file, image in zip(files[which][batch], images, strict=True):
                file.parent.mkdir(parents=True, exist_ok=True)
                with commit(file) as temporary:
                    image.save(temporary, format="PNG")
    progress(total, total, "drawing pictures")


def compare_pictures(
    prompts: Sequence[str], folder: Path, output: Path, embedded: Mapping[str, Floats] | None
) -> list[PicturePair]:
    """Compares the pictures of each prompt, the most changed first: by CLIP if there is one, else by color.

    Args:
        prompts: what was drawn.
        folder: holds the pictures.
        output: the audit's folder, from which files are named.
        embedded: what `embed_pictures` returns.
    """
    files = picture_files(folder, len(prompts))
    pairs = []
    for number, prompt in enumerate(prompts):
        before, after = files["base"][number], files["model"][number]
        names = [file.relative_to(output).as_posix() for file in (before, after)]
        pair = PicturePair(prompt, names[0], names[1], color_drift(_read(before), _read(after)))
        if embedded is not None:
            base, model, text = (embedded[name][number] for name in ("base", "model", "text"))
            distance = float(((base - model) ** 2).sum() / 2)  # 1 − cosine, and exactly 0 of equal pictures
            scores = (float(base @ text), float(model @ text))
            pair = replace(pair, clip_distance=distance, clip_score_base=scores[0], clip_score_model=scores[1])
        pairs.append(pair)
    return sorted(pairs, key=lambda pair: -(pair.color_drift if pair.clip_distance is None else pair.clip_distance))


def embed_pictures(prompts: Sequence[str], folder: Path, config: AuditConfig) -> dict[str, Floats] | None:
    """Computes CLIP's embeddings [n, d] of both models' pictures (base, model) and of the prompts (text).

    Returns:
        None without a CLIP, or without pictures.
    """
    settings = clip_of(config)
    if settings is None or not prompts:
        return None
    clip = load_clip(settings, prepare_device(config.device))
    files = picture_files(folder, len(prompts))
    of_images = {which: _embed_files(clip, paths, config.batch_size) for which, paths in files.items()}
    return of_images | {"text": clip.embed_texts(list(prompts)).astype(np.float64)}


def clip_of(config: AuditConfig) -> ClipConfig | None:
    """Returns which CLIP compares the pictures; None: none."""
    return None if config.clip is None else ClipConfig(model=config.clip, pretrained=config.clip_pretrained)


def color_drift(left: Image.Image, right: Image.Image) -> float:
    """Computes how far the colors of two pictures lie apart, wherever they stand in them, in units of ΔE (CIE76).

    For each of L*, a* and b*, the 1-Wasserstein distance of the pixels' values is taken; then the root of the sum of
    their squares. 2.3 is a just noticeable difference (Mahy et al. 1994).
    """
    import cv2

    def values(image: Image.Image) -> Floats:
        small = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) / 255
        return np.sort(cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64), axis=0)

    return float(np.linalg.norm(np.abs(values(left) - values(right)).mean(axis=0)))


def kernel_distance(left: Floats, right: Floats) -> float:
    """Computes the unbiased squared MMD of two sets of embeddings [n, d] under the kernel (x·y/d + 1)³.

    Binkowski et al. 2018, "Demystifying MMD GANs", equation 4, which has Inception's features where this has CLIP's,
    scaled to a mean square of 1.
    """
    width = left.shape[1]
    left, right = (each.astype(np.float64) * np.sqrt(width) for each in (left, right))

    def kernel(a: Floats, b: Floats) -> Floats:
        return np.asarray((a @ b.T / width + 1) ** 3)

    def within(a: Floats) -> float:
        values = kernel(a, a)
        return float((values.sum() - np.trace(values)) / (len(a) * (len(a) - 1)))

    return within(left) + within(right) - 2 * float(kernel(left, right).mean())


def _drawing(prompt: str, number: int, config: AuditConfig) -> Drawing:
    size, noise = (config.resolution, config.resolution), (stream_key(config.seed, "audit pictures"), number)
    return Drawing(prompt, "", size, config.sample_steps, config.guidance_scale, None, noise, prompt)


def _embed_files(clip: Clip, files: Sequence[Path], batch_size: int) -> Floats:
    parts = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    return np.concatenate([clip.embed_images([clip.prepare(_read(file)) for file in part]) for part in parts]).astype(
        np.float64
    )


def _read(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")
