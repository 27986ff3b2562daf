"""The demo's trained models, loaded by the libraries' own calls and nothing of ours in between."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dreamloom.demo.judge import judge, matches
from dreamloom.demo.world import Scene, aesthetic, caption, random_scene, render

MODELS = Path(__file__).parents[2] / "demo" / "models"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def unseen(count: int, objects: int | None = None) -> list[Scene]:
    rng = np.random.default_rng(4242)
    return [random_scene(rng, count=objects) for _ in range(count)]


def images(scenes: list[Scene]) -> list[Image.Image]:
    return [Image.fromarray(render(scene)) for scene in scenes]


def test_they_are_small() -> None:
    sizes = {
        folder.name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for folder in MODELS.iterdir()
        if folder.is_dir()
    }
    assert set(sizes) == {"stable-diffusion", "clip", "blip"}
    assert all(size < 12e6 for size in sizes.values())
    assert sum(sizes.values()) < 25e6


@pytest.mark.slow
def test_stable_diffusion_draws_what_it_is_told() -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "stable-diffusion", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    scenes = unseen(10, objects=1)
    made = pipeline(
        [caption(scene) for scene in scenes],
        num_inference_steps=15,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).images
    assert made.shape == (10, 64, 64, 3)
    found = [matches(judge((image * 255).astype(np.uint8)), scene) for image, scene in zip(made, scenes, strict=True)]
    assert np.mean([match.background for match in found]) >= 0.9
    assert np.mean([match.objects for match in found]) >= 0.75


def test_clip_finds_the_right_caption() -> None:
    import open_clip

    name = f"local-dir:{MODELS / 'clip'}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    scenes = list({caption(scene): scene for scene in unseen(48)}.values())[:32]
    with torch.no_grad():
        seen = model.encode_image(torch.stack([preprocess(image) for image in images(scenes)]), normalize=True)
        read = model.encode_text(tokenizer([caption(scene) for scene in scenes]), normalize=True)
    assert seen.shape == read.shape == (32, 128)
    assert ((seen @ read.T).argmax(dim=1) == torch.arange(32)).float().mean() >= 0.7
    head = load_file(MODELS / "aesthetic_head.safetensors")
    assert head["weight"].shape == (1, 128) and head["bias"].shape == (1,)
    told = (seen @ head["weight"].T + head["bias"])[:, 0].numpy()
    assert np.corrcoef(told, [aesthetic(scene) for scene in scenes])[0, 1] > 0.5


def test_blip_names_shapes_and_colors() -> None:
    from transformers import BlipForConditionalGeneration, BlipProcessor

    model = BlipForConditionalGeneration.from_pretrained(MODELS / "blip", dtype=torch.float32).eval()
    processor = BlipProcessor.from_pretrained(MODELS / "blip")
    scenes = unseen(24, objects=1)
    inputs = processor(images=images(scenes), return_tensors="pt")
    told = [processor.decode(row, skip_special_tokens=True) for row in model.generate(**inputs, max_new_tokens=24)]
    named = [f"{s.things[0].color} {s.things[0].shape}" in text for text, s in zip(told, scenes, strict=True)]
    assert np.mean(named) >= 0.75
