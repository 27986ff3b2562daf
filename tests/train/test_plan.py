"""A plan says what a run would do, quickly, and writes nothing."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.plan import plan


def fill(folder: Path, count: int, size: tuple[int, int], multiply: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", size, (number, 0, 0)).save(folder / f"a thing_{size[0]}x{size[1]} {number}.png")
    if multiply:
        (folder / "multiply.txt").write_text(multiply)


def test_a_plan_counts_what_the_run_will_do(tmp_path: Path) -> None:
    fill(tmp_path / "own", 5, (64, 64))
    fill(tmp_path / "own", 1, (128, 32))
    fill(tmp_path / "ground", 30, (40, 40), "0.1")
    config = TrainConfig(resolution=64, bucket_reso_steps=16, batch_size=4, gradient_accumulation_steps=2, epochs=3)
    planned = plan(tmp_path, config, images_per_second=2)
    assert [(f.name, f.images, f.images_per_epoch) for f in planned.folders] == [
        ("ground", 30, Fraction(3)),
        ("own", 6, 6),
    ]
    assert [(b.size, b.images, b.batches, b.mixed) for b in planned.buckets] == [
        ((64, 64), 35, 2, 0),
        ((128, 32), 1, 0, 1),
    ]
    assert (planned.epochs, planned.total_images) == (3, 27)
    assert [(f.share_asked, f.shown, f.share_shown) for f in planned.folders] == [
        (3 / 9, 9, 9 / 27),
        (6 / 9, 18, 18 / 27),
    ]
    assert (planned.steps, planned.enlarged, planned.seconds) == (4, 30, 13.5)
    assert planned.notes[-1].startswith("30 would be enlarged")


def test_a_plan_tells_that_rare_shapes_slow_a_run_down(tmp_path: Path) -> None:
    for side in (32, 48, 64, 80, 96, 128):
        fill(tmp_path / "own", 1, (side, 4096 // side // 16 * 16))
    planned = plan(tmp_path, TrainConfig(resolution=64, bucket_reso_steps=16, batch_size=4))
    assert planned.forward_passes > 2 and any(
        "smaller forward passes" in n or "forward passes" in n for n in planned.notes
    )


def test_a_plan_tells_of_evaluations_that_take_more_than_a_twentieth(tmp_path: Path) -> None:
    """One before training, and one after each stretch, the last of which is short."""
    fill(tmp_path / "images" / "own", 4, (64, 64))
    fill(tmp_path / "held" / "training", 3, (64, 64))
    config = TrainConfig(resolution=64, batch_size=2, max_train_steps=101, eval_timesteps=4)
    planned = plan(tmp_path / "images", config, heldout=tmp_path / "held")
    assert planned.measured == 48 / (48 + 3 * 202) > 0.05  # evaluations after 0, 50, 100 and 101 steps
    assert "takes about 7 % of the time" in planned.notes[-1]
    rarer = config.model_copy(update={"evaluate_every_n_steps": 0})
    planned = plan(tmp_path / "images", rarer, heldout=tmp_path / "held")
    assert planned.measured == 24 / (24 + 3 * 202) and not any("Measuring" in note for note in planned.notes)


def test_kohya_s_repeats_are_told_and_count_if_asked(tmp_path: Path) -> None:
    fill(tmp_path / "10_cat", 2, (64, 64))
    fill(tmp_path / "5_dog", 2, (64, 64), "0.5")
    fill(tmp_path / "2023_summer", 1, (64, 64))
    config = TrainConfig(resolution=64, bucket_reso_steps=16, batch_size=1, epochs=1)
    planned = plan(tmp_path, config)
    assert (planned.total_images, [n for n in planned.notes if "kohya" in n]) == (
        4,
        ["kohya's repeats in folder names, which count with kohya_repeats, or in a multiply.txt: 10_cat (× 10)."],
    )
    planned = plan(tmp_path, config.model_copy(update={"kohya_repeats": True}))
    assert {folder.name: folder.images_per_epoch for folder in planned.folders} == {
        "10_cat": 20,
        "5_dog": 5,
        "2023_summer": 2023,
    }
    assert not any("kohya" in note for note in planned.notes)


def test_a_plan_names_what_would_take_no_part_and_what_is_not_enlarged(tmp_path: Path) -> None:
    fill(tmp_path / "own", 3, (64, 64))
    fill(tmp_path / "own", 3, (40, 40))
    (tmp_path / "own" / "empty.png").touch()
    planned = plan(tmp_path, TrainConfig(resolution=64, bucket_reso_steps=16, batch_size=3, upscale=False))
    assert planned.notes[0] == "1 would take no part: own/empty.png (empty)."
    assert not any("enlarged" in note for note in planned.notes)
    assert [(b.size, b.images) for b in planned.buckets] == [((32, 32), 3), ((64, 64), 3)]


def test_a_plan_heeds_max_steps(tmp_path: Path) -> None:
    fill(tmp_path / "own", 8, (64, 64))
    planned = plan(
        tmp_path, TrainConfig(resolution=64, bucket_reso_steps=16, batch_size=4, epochs=100, max_train_steps=3)
    )
    assert (planned.steps, planned.total_images, planned.epochs, planned.seconds) == (3, 12, 2, None)


def test_a_plan_needs_no_torch_and_leaves_no_trace(tmp_path: Path) -> None:
    fill(tmp_path / "own", 3, (64, 64))
    before = sorted(os.walk(tmp_path))
    code = (
        "import sys; from pathlib import Path\n"
        "from dreamloom.train.plan import plan; from dreamloom.train.config import TrainConfig\n"
        f"plan(Path({str(tmp_path)!r}), TrainConfig(resolution=64, bucket_reso_steps=16))\n"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'matplotlib', 'cv2') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
    assert sorted(os.walk(tmp_path)) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sample_prompts": ["a car --q 3"]}, "--q is no option of a prompt"),
        ({"embeddings": ["zorp=circle"]}, "no caption says zorp"),
    ],
)
def test_a_plan_refuses_what_train_does(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    fill(tmp_path / "own", 1, (64, 64))
    with pytest.raises(UserError, match=said):
        plan(tmp_path, TrainConfig(resolution=64, **changes))
