"""Measures the demo's models as shipped: loads them with the libraries' own calls, and has the judge score them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamloom.demo.judge import Match, judge, matches
from dreamloom.demo.pretrain_loop import device
from dreamloom.demo.world import Scene, aesthetic, caption, parse, random_scene, render

STEPS = 25
GUIDANCE = 3.0


def measure(models: Path, seed: int = 999, count: int = 200) -> Iterator[tuple[str, float]]:
    """Yields the measures in the README of the models as (label, value); shares are 0 to 1."""
    yield from measure_vae(models, seed)
    yield from measure_blip(models, seed, count)
    yield from measure_clip(models, seed)
    yield from measure_diffusion(models, seed, count)


def sample_scenes(seed: int, count: int, **kind: Any) -> list[Scene]:
    """Returns scenes of a seed that no training uses; `kind` is passed to `random_scene`."""
    rng = np.random.default_rng([seed, 40])
    return [random_scene(rng, **kind) for _ in range(count)]


def load_pipeline(models: Path) -> Any:
    """Loads the Stable Diffusion pipeline in float32, without progress bars."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(models / "stable-diffusion", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device())


def generate(pipeline: Any, prompts: Sequence[str], seed: int, steps: int = STEPS) -> NDArray[np.uint8]:
    """Generates one 64 × 64 image per prompt, uint8 [n, 64, 64, 3]."""
    images = []
    for start in range(0, len(prompts), 50):
        generator = torch.Generator(device=device()).manual_seed(seed + start)
        part = pipeline(
            list(prompts[start : start + 50]),
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            generator=generator,
            output_type="np",
        ).images
        images.append((part * 255).round().astype(np.uint8))
    return np.concatenate(images)


def measure_diffusion(models: Path, seed: int, count: int) -> list[tuple[str, float]]:
    """Measures images of general prompts, and of prompts with held-out combinations, by the judge."""
    pipeline = load_pipeline(models)
    rows = []
    for name, kind in (("", {}), (", held-out combinations", {"held_out": True})):
        scenes = sample_scenes(seed, count, **kind)
        results = score(generate(pipeline, [caption(scene) for scene in scenes], seed), scenes)
        for objects, title in ((1, "one object"), (2, "two objects")):
            part = [match for match, scene in zip(results, scenes, strict=True) if len(scene.things) == objects]
            rows += [
                (f"{title}{name}: shapes", _share(match.shapes for match in part)),
                (f"{title}{name}: colors", _share(match.colors for match in part)),
                (f"{title}{name}: shape and color of each", _share(match.objects for match in part)),
            ]
            if objects == 2:
                rows.append((f"{title}{name}: and in their places", _share(match.relation for match in part)))
        rows.append((f"background{name}", _share(match.background for match in results)))
    return rows


def score(images: NDArray[np.uint8], scenes: Sequence[Scene]) -> list[Match]:
    """Returns the judge's match of each image with its scene."""
    return [matches(judge(image), scene) for image, scene in zip(images, scenes, strict=True)]


def measure_vae(models: Path, seed: int) -> list[tuple[str, float]]:
    """Measures scenes that went to latents and back, and zorps, which the VAE has never seen, by the judge."""
    from dreamloom.demo.pretrain_vae import to_pixels, to_unit

    vae = load_pipeline(models).vae
    rows = []
    for name, kind in (("scenes", {}), ("zorps", {"shapes": ["zorp"]})):
        scenes = sample_scenes(seed, 200, **kind)
        images = to_unit(torch.from_numpy(np.stack([render(scene) for scene in scenes])))
        with torch.no_grad():
            back = vae.decode(vae.encode(images).latent_dist.mean).sample
        results = score(to_pixels(back), scenes)
        rows.append((f"VAE, {name} to latents and back: all right", _share(match.all for match in results)))
        rows.append((f"VAE, {name}: mean absolute error of 0..1", float((back - images).abs().mean()) / 2))
    return rows


def measure_clip(models: Path, seed: int) -> list[tuple[str, float]]:
    """Measures retrieval among 64 captions, with and without held-out combinations, and the aesthetic head."""
    import open_clip
    from PIL import Image
    from safetensors.torch import load_file

    name = f"local-dir:{models / 'clip'}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)
    head = load_file(models / "aesthetic_head.safetensors")
    rows = []
    for title, kind in (("unseen scenes", {}), ("held-out combinations", {"held_out": True})):
        scenes = _different(sample_scenes(seed, 640, **kind))[:320]
        with torch.no_grad():
            images = torch.stack([preprocess(Image.fromarray(render(scene))) for scene in scenes])
            seen = model.encode_image(images, normalize=True)
            read = model.encode_text(tokenizer([caption(scene) for scene in scenes]), normalize=True)
        likeness = (seen @ read.T).unflatten(0, (-1, 64)).unflatten(2, (-1, 64))
        own = torch.stack([likeness[i, :, i] for i in range(len(likeness))])
        rows.append((f"CLIP, {title}: caption found among 64", _share((own.argmax(2) == torch.arange(64)).flatten())))
        told = (seen @ head["weight"].T + head["bias"])[:, 0].numpy()
        truth = [aesthetic(scene) for scene in scenes]
        rows.append((f"aesthetic head, {title}: correlation", float(np.corrcoef(told, truth)[0, 1])))
    return rows


def measure_blip(models: Path, seed: int, count: int) -> list[tuple[str, float]]:
    """Measures BLIP's captions: whether the shapes and colors are right, and whether the whole caption is."""
    from PIL import Image
    from transformers import BlipForConditionalGeneration, BlipProcessor

    model = BlipForConditionalGeneration.from_pretrained(models / "blip", dtype=torch.float32).eval()
    processor = BlipProcessor.from_pretrained(models / "blip")
    rows = []
    for title, kind in (("unseen scenes", {}), ("held-out combinations", {"held_out": True})):
        scenes = sample_scenes(seed, count, **kind)
        inputs = processor(images=[Image.fromarray(render(scene)) for scene in scenes], return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=24)
        told = [str(processor.decode(row, skip_special_tokens=True)).replace(" ,", ",") for row in tokens]
        named = [_things(text) == scene.things for text, scene in zip(told, scenes, strict=True)]
        exact = [text == caption(scene) for text, scene in zip(told, scenes, strict=True)]
        rows += [(f"BLIP, {title}: shapes and colors named", _share(named)), (f"BLIP, {title}: exact", _share(exact))]
    return rows


def _things(text: str) -> tuple[Any, ...]:
    try:
        return parse(text).things
    except ValueError:
        return ()


def _different(scenes: list[Scene]) -> list[Scene]:
    return list({caption(scene): scene for scene in scenes}.values())


def _share(right: Any) -> float:
    return float(np.mean([bool(value) for value in right]))
