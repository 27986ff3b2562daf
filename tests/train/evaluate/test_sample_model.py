"""Drawing from a run: prompts and seeds side by side, the base and the kept checkpoints below each other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.config import SampleConfig
from dreamloom.train.evaluate.sample_model import draw_model
from dreamloom.train.loop.loop import train


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: str, folder: Path, config: Callable[..., TrainConfig]
) -> Path:
    """A run of two checkpoints, with an average, whose samples show one prompt."""
    run = tmp_path_factory.mktemp("sampled") / "run"
    settings = config(base=tiny_base, max_train_steps=4, checkpoints_total_limit=2, learning_rate=0.1)
    assert train(folder, run, settings.model_copy(update={"ema_half_life_images": 2})).finished
    return run


def drawn(model: Path | str, tmp_path: Path, **changes: object) -> np.ndarray:
    output = tmp_path / "grid.png"
    draw_model(model, output, SampleConfig.model_validate({"device": "cpu", "batch_size": 2, **changes}))
    with Image.open(output) as image:
        return np.asarray(image)


def rows_of(grid: np.ndarray, rows: int, side: int = 32) -> list[np.ndarray]:
    """The images of each row, from the bottom."""
    return [grid[grid.shape[0] - side * (row + 1) : grid.shape[0] - side * row] for row in range(rows)]


def test_a_run_is_drawn_by_its_prompts_seeds_and_checkpoints(run: Path, tmp_path: Path) -> None:
    grid = drawn(run, tmp_path, prompts=["a red thing", "a scene --d 7"], seeds=[1, 2])
    newest, older, base = (row[:, -96:] for row in rows_of(grid, 3))
    assert not np.array_equal(newest, older) and not np.array_equal(older, base)
    assert not np.array_equal(newest[:, :32], newest[:, 32:64]), "two seeds of a prompt, and one that names its own"
    again = drawn(run, tmp_path, prompts=["a red thing --d 2"], checkpoints=[4])
    assert np.array_equal(rows_of(again, 1)[0][:, -32:], older[:, 32:64])
    alone = drawn(run / "checkpoints" / "4", tmp_path, prompts=["a red thing --d 2"])
    assert np.array_equal(alone, again)


def test_without_prompts_a_run_s_own_are_drawn(run: Path, tmp_path: Path) -> None:
    own = drawn(run, tmp_path, checkpoints=[8])
    assert np.array_equal(own, drawn(run, tmp_path, checkpoints=[8], prompts=["a red thing"]))


def test_a_whole_model_is_a_row_and_a_base_is_another(tiny_base: str, run: Path, tmp_path: Path) -> None:
    settings = {"prompts": ["a red thing"], "resolution": 32, "sample_steps": 2}
    alone = drawn(tiny_base, tmp_path, **settings)
    both = drawn(tiny_base, tmp_path, base=tiny_base, **settings)
    assert both.shape[0] == alone.shape[0] + 32
    first, second = (row[:, -32:] for row in rows_of(both, 2))
    assert np.array_equal(first, second)


def test_what_can_t_be_drawn_is_said(run: Path, tiny_base: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"keeps no checkpoint 5; it keeps 4, 8\."):
        drawn(run, tmp_path, checkpoints=[5])
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists and is no image of this command"):
        draw_model(run, tmp_path / "mine.png", SampleConfig(prompts=["a"]))
    with pytest.raises(UserError, match="name some with --prompts"):
        drawn(tiny_base, tmp_path)
    with pytest.raises(UserError, match="--zz is no option of a prompt"):
        drawn(run, tmp_path, prompts=["a --zz 3"])
