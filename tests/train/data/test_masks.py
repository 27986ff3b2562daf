"""Loss masks: where they come from, that they go the way of their image, and what the loss makes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.caption.parts import CaptionParts
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.crops import View, center_view, latent_mask
from dreamloom.train.data.dataset import Dataset, Problem, Sample, read_dataset
from dreamloom.train.data.image import ByteRange, TrainingImage
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import loss_masks
from dreamloom.train.data.mask_files import Mask
from dreamloom.train.data.masks import render_masks
from dreamloom.train.diffusion.formulas import sample_losses
from dreamloom.train.evaluate.config import EvaluateConfig
from dreamloom.train.evaluate.evaluate import evaluate
from dreamloom.train.families.opening import load_model
from dreamloom.train.loop.loop import train
from dreamloom.train.plan import plan

CPU = torch.device("cpu")


def save_mask(path: Path, values: np.ndarray[Any, Any]) -> None:
    Image.fromarray(values.astype(np.uint8)).save(path)


def masked_sample(folder: Path, values: np.ndarray[Any, Any], size: tuple[int, int], bucket: tuple[int, int]) -> Sample:
    save_mask(folder / "x-masklabel.png", values)
    image = TrainingImage("x", ByteRange(str(folder / "x.png")), (CaptionParts(),))
    return Sample(image, 0, size, bucket, Mask(ByteRange(str(folder / "x-masklabel.png")), "content"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two squares: of one the right half counts, of the other all."""
    (tmp_path / "images" / "a").mkdir(parents=True)
    for name, color in (("x", "teal"), ("y", "orange")):
        Image.new("RGB", (64, 64), color).save(tmp_path / "images" / "a" / f"{name}.png")
    halves = np.zeros((64, 64))
    halves[:, 32:] = 255
    save_mask(tmp_path / "images" / "a" / "x-masklabel.png", halves)
    return tmp_path / "images"


@given(st.data())
def test_a_cell_is_the_mean_of_what_it_shows(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Against sums over a mask that is enlarged until no edge cuts a pixel."""
    left, top = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 8))
    width, height = data.draw(st.integers(4, 16)), data.draw(st.integers(4, 16))
    values = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, (24, 24))
    sample = masked_sample(tmp_path_factory.mktemp("mask"), values, (24, 24), (32, 32))
    view = View((left, top, left + width, top + height))
    plain, flipped = render_masks(sample, [view, View(view.box, flipped=True)], 4, 8)
    large = np.kron(values, np.ones((4, 8)))[top * 4 : (top + height) * 4, left * 8 : (left + width) * 8]
    expected = large.reshape(4, height, 8, width).mean(axis=(1, 3))
    assert np.abs(plain - expected).max() <= 0.5 + 1e-6
    assert np.array_equal(flipped, plain[:, ::-1])


@pytest.mark.parametrize("scale", [1, 4])
def test_a_mask_may_be_larger_or_smaller_than_its_image(tmp_path: Path, scale: int) -> None:
    values = np.zeros((16 * scale, 32 * scale))
    values[:, 16 * scale :] = 255
    sample = masked_sample(tmp_path, values, (64, 32), (32, 32))
    (cells,) = render_masks(sample, [center_view(sample)], 8, 8)
    assert (cells[:, :4] == 0).all() and (cells[:, 4:] == 255).all()


def test_padding_never_counts(tmp_path: Path) -> None:
    sample = masked_sample(tmp_path, np.full((24, 64), 255), (64, 24), (32, 32))
    view = center_view(sample, "#ffffff")
    (cells,) = render_masks(sample, [view], 8, 8)
    assert np.array_equal(cells, 255 * latent_mask(sample, view, 8, 8)) and (cells == 0).any()


def test_masks_are_found_beside_the_images(folder: Path) -> None:
    def masks(kind: Any) -> dict[str, bool]:
        samples = read_dataset(folder, 32, 8, 1, masks=kind).samples
        return {sample.name: sample.mask is not None for sample in samples}

    assert masks("files") == {"a/x.png": True, "a/y.png": False}, "and a mask is no image to train on"
    assert masks("none") == {"a/x.png": False, "a/y.png": False}
    Image.new("RGBA", (64, 64), (255, 0, 0, 128)).save(folder / "a" / "y.png")
    assert masks("alpha") == {"a/x.png": False, "a/y.png": True}


@pytest.mark.parametrize("name", ["Y-MaskLabel.PNG", "y-masklabel.jpg", "y-MASKLABEL.webp", "y-masklabel.gif"])
def test_masks_are_found_in_any_case_and_format(name: str, folder: Path) -> None:
    Image.new("L", (64, 64), 255).save(folder / "a" / name)
    samples = read_dataset(folder, 32, 8, 1, masks="files").samples
    assert {sample.name: sample.mask is not None for sample in samples} == {"a/x.png": True, "a/y.png": True}


def test_a_mask_that_cannot_be_used_costs_its_image(folder: Path, tiny_base: str) -> None:
    Image.new("L", (64, 32), 255).save(folder / "a" / "y-masklabel.png")
    assert read_dataset(folder, 32, 8, 1, masks="files").problems == (Problem("a/y.png", "mask_of_another_shape"),)
    (folder / "a" / "y-masklabel.png").write_bytes(b"no image")
    assert read_dataset(folder, 32, 8, 1, masks="files").problems == (Problem("a/y.png", "broken_mask"),)
    Image.new("L", (64, 64), 0).save(folder / "a" / "y-masklabel.png")
    latents = LatentCache(None, load_model(tiny_base, CPU).vae)
    assert latents.add(read_dataset(folder, 32, 8, 1, masks="files").samples, 1) == [Problem("a/y.png", "empty_mask")]


def test_transparency_is_a_mask(folder: Path, tiny_base: str) -> None:
    image = np.zeros((64, 64, 4), np.uint8)
    image[:32, :, 3] = 255
    Image.fromarray(image).save(folder / "a" / "y.png")
    weights = weights_of(folder, tiny_base, "alpha", unmasked_weight=0.25)
    assert (weights[1, :4] == 1).all() and (weights[1, 4:] == 0.25).all() and (weights[0] == 1).all()


def weights_of(folder: Path, base: str, kind: Any, unmasked_weight: float) -> torch.Tensor:
    latents = LatentCache(None, load_model(base, CPU).vae)
    samples = read_dataset(folder, 32, 8, 1, masks=kind).samples
    assert not latents.add(samples, 1)
    weights = loss_masks(samples, [center_view(sample) for sample in samples], latents, unmasked_weight)
    assert weights is not None
    return weights


def test_an_image_counts_the_same_however_much_is_masked(folder: Path, tiny_base: str) -> None:
    weights = weights_of(folder, tiny_base, "files", unmasked_weight=0.0)
    error = torch.zeros(2, 4, 8, 8)
    error[:, :, :, 4:] = 3  # in the half that counts
    assert sample_losses(error**2, weights).tolist() == [9, 4.5]
    weights = weights_of(folder, tiny_base, "files", unmasked_weight=0.5)
    assert sample_losses(error**2, weights).tolist() == [6, 4.5]  # 9 · 1 / (1 + 0.5)


def test_a_changed_mask_makes_another_run_but_no_latent_anew(folder: Path, tiny_base: str, tmp_path: Path) -> None:
    vae = load_model(tiny_base, CPU).vae

    def read(kind: Any = "files") -> Dataset:
        return read_dataset(folder, 32, 8, 1, masks=kind)

    before, unmasked = read(), read("none").digest()
    LatentCache(tmp_path / "cache", vae).add(before.samples, 1)
    save_mask(folder / "a" / "x-masklabel.png", np.full((64, 64), 255))
    after = read()
    assert after.digest() != before.digest() and read("none").digest() == unmasked
    vae.encode = None  # nothing is encoded
    latents = LatentCache(tmp_path / "cache", vae)
    assert latents.add(after.samples, 1) == []
    mask = latents.get_mask(after.samples[0], center_view(after.samples[0]))
    assert mask is not None and (mask == 255).all()


def test_a_plan_tells_of_masks(folder: Path, config: Callable[..., TrainConfig]) -> None:
    assert any("1 have a mask" in note for note in plan(folder, config()).notes)
    assert not any("have a mask" in note for note in plan(folder, config(masks="none")).notes)


def test_held_out_images_are_measured_by_their_masks(folder: Path, tiny_base: str, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "training").symlink_to(folder)

    def losses(**changes: Any) -> dict[str, float]:
        config = EvaluateConfig(resolution=32, bucket_reso_steps=8, eval_timesteps=1, num_workers=1, **changes)
        return evaluate(tiny_base, tiny_base, tmp_path / "held", config).base["training"]

    masked, plain, uniform = losses(unmasked_weight=0), losses(masks="none"), losses(unmasked_weight=1)
    assert masked["a/x.png"] != plain["a/x.png"] and masked["a/y.png"] == pytest.approx(plain["a/y.png"])
    assert uniform == pytest.approx(plain)


def test_a_masked_run_that_is_killed_and_resumed_has_the_same_losses(
    folder: Path, tiny_base: str, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    settings = config(
        base=tiny_base, epochs=4, flip_p=0.5, crop_jitter=0.2, batch_size=1, log_every_n_steps=1, unmasked_weight=0
    )
    train(folder, tmp_path / "whole", settings)
    stopped = False

    def stop(done: int, total: int | None, note: str = "") -> None:
        nonlocal stopped
        if not stopped and total == 8 and done == 4:
            stopped = True
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(folder, tmp_path / "stopped", settings, progress=stop)
    train(folder, tmp_path / "stopped", settings)
    train(folder, tmp_path / "unmasked", settings.model_copy(update={"masks": "none"}))
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("whole", "stopped", "unmasked")]
    assert logs[0] == logs[1] != logs[2]
