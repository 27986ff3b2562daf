"""Samples: fixed noise, prompts from a file that may change while a run goes on, and a grid over the run."""

import json
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.progress import silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.evaluate.drawings import Drawing, plan_drawings
from dreamloom.train.evaluate.sample import draw_each, draw_samples
from dreamloom.train.evaluate.sample_files import GRID_LABEL, draw_grid
from dreamloom.train.families.check import check_models
from dreamloom.train.families.opening import load_model
from dreamloom.train.loop.loop import train
from dreamloom.train.model.model import Model
from dreamloom.train.samplers import SAMPLERS

Config = Callable[..., TrainConfig]


def prompts_of(path: Path) -> list[str]:
    with Image.open(path) as image:
        return list(json.loads(image.info["prompts"]))


def test_prompts_are_read_anew_and_the_grid_has_the_rows_of_the_newest(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config
) -> None:
    file, run = tmp_path / "prompts.txt", tmp_path / "run"
    file.write_text("a thing\n\n# a note\n  a scene  \n")

    def change(done: int, total: int | None, note: str = "") -> None:
        if "images/s" in note and done == 6:
            file.write_text("something else\na scene\n")

    settings = config(
        base=tiny_base, sample_prompts=[], sample_prompts_file=file, sample_every_n_steps=2, max_train_steps=6, epochs=9
    )
    assert train(folder, run, settings, progress=change).finished
    samples = sorted((run / "samples").iterdir())
    assert [prompts_of(path)[0] for path in samples] == ["a thing", "a thing", "something else", "something else"]
    assert prompts_of(samples[0]) == ["a thing", "a scene"]
    with Image.open(run / "samples.png") as grid, Image.open(samples[-1]) as newest:
        top = grid.height - 2 * newest.height
        assert grid.width == GRID_LABEL + newest.width and top > 12, "the prompts stand above their columns"
        assert np.array_equal(np.asarray(grid)[top + newest.height :, GRID_LABEL:], np.asarray(newest))
        heads = np.asarray(grid.convert("L"))[:top, GRID_LABEL:]
        assert (heads[:, : newest.width // 2] < 128).any() and (heads[:, newest.width // 2 :] < 128).any()


def test_an_image_depends_on_its_noise_and_on_how_it_is_guided(tiny_base: str, tmp_path: Path, config: Config) -> None:
    def drawn(name: str, number: int, **changes: float) -> bytes:
        draw_each("a thing", {number: tmp_path / name}, config(base=tiny_base, **changes), silent)
        return (tmp_path / name).read_bytes()

    first = drawn("a.png", 0, guidance_scale=1.0)
    assert first == drawn("b.png", 0, guidance_scale=1.0)
    assert len({first, drawn("c.png", 1, guidance_scale=1.0), drawn("d.png", 0, guidance_scale=9.0)}) == 3


def test_a_long_run_keeps_its_first_and_last_rows(tmp_path: Path) -> None:
    for number in range(40):
        Image.new("RGB", (10, 12), (number, 0, 0)).save(tmp_path / f"{number:09d}.png")
    (tmp_path / ".tmp-1-killed.png").write_bytes(b"half a pic")
    draw_grid(tmp_path, tmp_path / "grid")
    with Image.open(tmp_path / "grid") as grid:
        assert grid.height == 16 * 12
        reds = [grid.getpixel((GRID_LABEL + 2, 12 * row + 6))[0] for row in range(16)]  # type: ignore[index]
    assert reds[0] == 0 and reds[-1] == 39 and reds == sorted(set(reds))


@pytest.fixture(scope="module")
def model(tiny_base: str) -> Model:
    return load_model(tiny_base, torch.device("cpu"))


def drawings(folder: Path, config: TrainConfig, images_seen: int = 0) -> list[Drawing]:
    return plan_drawings(read_dataset(folder, 32, 8, 1), config, images_seen)


def test_a_file_that_is_gone_or_half_written_ends_no_run(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config
) -> None:
    file = tmp_path / "prompts.json"
    settings = config(base=tiny_base, sample_prompts=["a thing"], sample_prompts_file=file)
    assert [drawing.prompt for drawing in drawings(folder, settings)] == ["a thing"]
    file.write_text('[{"prompt": "half of')
    assert [drawing.prompt for drawing in drawings(folder, settings)] == ["a thing"]
    with pytest.raises(UserError, match=r"prompts\.json can't be read .* mend it"):
        train(folder, tmp_path / "run", settings)
    with pytest.raises(UserError, match="does not exist"):
        check_models(TrainConfig(base=tiny_base, sample_prompts_file=tmp_path / "missing.txt"))


def test_sizes_guidance_scales_and_prompts_make_columns(
    model: Model, folder: Path, tmp_path: Path, config: Config
) -> None:
    lines = ["a red thing --w 48 --h 24 --l 1,5", "a scene --n blurry"]
    planned = drawings(folder, config(sample_prompts=lines))
    draw_samples(model, planned, tmp_path / "0.png", config(), silent)
    draw_grid(tmp_path, tmp_path / "grid")
    with Image.open(tmp_path / "0.png") as image, Image.open(tmp_path / "grid") as grid:
        assert image.size == (48 + 48 + 32, 32)
        pixels = np.asarray(image)
        assert (pixels[24:, :96] == 255).all(), "lower images leave white below"
        assert not np.array_equal(pixels[:24, :48], pixels[:24, 48:96]), "guided by 1 and by 5"
        assert prompts_of(tmp_path / "0.png") == ["a red thing", "a red thing", "a scene"]
        assert grid.width == GRID_LABEL + image.width


@pytest.mark.parametrize("scheduler", [None, *SAMPLERS])
def test_samples_are_what_diffusers_draws(
    model: Model, scheduler: str | None, folder: Path, tmp_path: Path, config: Config
) -> None:
    settings = config(sample_prompts=["a red thing --n blurry --d 5 --l 4 --s 3"], sample_scheduler=scheduler)
    (drawing,) = drawings(folder, settings)
    draw_samples(model, [drawing], tmp_path / "0.png", settings, silent)
    name, options = SAMPLERS[scheduler] if scheduler else ("DDIMScheduler", {})
    pipeline = diffusers.StableDiffusionPipeline(
        vae=model.vae, text_encoder=model.components["text_encoder"], tokenizer=model.tokenizers["text_encoder"],
        unet=model.denoiser, scheduler=getattr(diffusers, name).from_config(model.scheduler.config, **options),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    reference = pipeline(
        "a red thing", negative_prompt="blurry", width=32, height=32, num_inference_steps=3, guidance_scale=4,
        latents=noise.normal(stream_key(5, "samples"), torch.tensor([0]), (4, 8, 8)),
        generator=torch.Generator().manual_seed(stream_key(*drawing.noise) >> 1),
    ).images[0]  # fmt: skip
    with Image.open(tmp_path / "0.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(reference))


def test_a_random_caption_and_a_random_seed_change_along_a_run_and_come_again(
    folder: Path, tmp_path: Path, config: Config
) -> None:
    file = tmp_path / "prompts.json"
    file.write_text('{"samples": [{"random_caption": true}, {"prompt": "a thing", "seed": -1}, {"prompt": "b"}]}')
    settings = config(sample_prompts=[], sample_prompts_file=file)
    points = [drawings(folder, settings, seen) for seen in range(0, 200, 10)]
    assert points == [drawings(folder, settings, seen) for seen in range(0, 200, 10)]
    assert {drawing.prompt for drawing, _, _ in points} >= {"a thing", "a scene of kind 1"}
    assert {drawing.heading for drawing, _, _ in points} == {"(a random caption)"}
    assert len({drawing.noise for _, drawing, _ in points}) == len(points)
    assert len({drawing.noise for _, _, drawing in points}) == 1
