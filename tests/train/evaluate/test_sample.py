"""Samples: fixed noise, prompts from a file that may change while a run goes on, and a grid over the run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.progress import silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.sample import GRID_LABEL, draw_each, draw_grid, read_prompts
from dreamloom.train.loop.loop import train
from dreamloom.train.model.check import check_models

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
        assert grid.size == (GRID_LABEL + newest.width, 2 * newest.height)
        assert np.array_equal(np.asarray(grid)[newest.height :, GRID_LABEL:], np.asarray(newest))


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


def test_a_file_that_is_gone_or_half_written_ends_no_run(tiny_base: str, tmp_path: Path) -> None:
    assert read_prompts(tmp_path / "missing.txt") == []
    (tmp_path / "half.txt").write_bytes(b"a caf\xc3")
    assert read_prompts(tmp_path / "half.txt") == []
    with pytest.raises(UserError, match="does not exist"):
        check_models(TrainConfig(base=tiny_base, sample_prompts_file=tmp_path / "missing.txt"))
