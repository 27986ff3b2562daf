"""A run folder belongs to one recipe, and its best checkpoint is the one that learned most and forgot least."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.run.folder import (
    TrainSummary,
    best_checkpoint,
    best_point,
    check_run_folder,
    list_checkpoints,
    read_config,
    read_summary,
    train_recipe,
    truncate_log,
    write_settings,
    write_summary,
)

CONFIG = TrainConfig(max_train_steps=3)


def point(images_seen: int, learned: float | None, forgotten: float | None = None) -> dict[str, Any]:
    measures = {"learned": learned, "forgotten": forgotten}
    changes = {name: None if value is None else {"change": value} for name, value in measures.items()}
    return {"images_seen": images_seen, **changes}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with its settings and three checkpoints."""
    write_settings(tmp_path / "run", "recipe", Path("dataset"), None, CONFIG)
    for images_seen in (100, 20, 3):
        (tmp_path / "run" / "checkpoints" / str(images_seen)).mkdir(parents=True)
    return tmp_path / "run"


def test_what_is_written_is_read(run: Path) -> None:
    assert read_config(run) == CONFIG and read_config(run / "nowhere") is None
    assert read_summary(run) is None
    summary = TrainSummary(True, 3, 0, learned=0.5)
    write_summary(run, summary)
    assert read_summary(run) == summary


def test_a_folder_belongs_to_one_recipe(run: Path, tmp_path: Path) -> None:
    check_run_folder(run, "recipe", CONFIG)
    check_run_folder(tmp_path / "new", "recipe", CONFIG)
    with pytest.raises(UserError, match=r"made with another config \(seed 0 instead of 1\); name a new folder"):
        check_run_folder(run, "another", CONFIG.model_copy(update={"seed": 1}))
    with pytest.raises(UserError, match="made with other images, captions, concepts or models"):
        check_run_folder(run, "another", CONFIG.model_copy(update={"num_workers": 1}))
    with pytest.raises(UserError, match="is not UTF-8; name another folder"):
        check_run_folder(tmp_path / os.fsdecode(b"r\xe9"), "recipe", CONFIG)
    with pytest.raises(UserError, match="holds something that is not a training run"):
        check_run_folder(tmp_path, "recipe", CONFIG)


def test_settings_that_are_cut_off_are_said(run: Path) -> None:
    (run / "config.json").write_text('{"schema": "1.0", "con')
    with pytest.raises(UserError, match=r"config\.json can't be read"):
        read_config(run)


def test_checkpoints_come_by_the_images_seen(run: Path) -> None:
    assert [path.name for path in list_checkpoints(run)] == ["3", "20", "100"]
    best = best_checkpoint(run)
    assert best is not None and best.name == "100"  # nothing was measured
    points = [point(3, 0.1), point(20, 0.3, 0.1), point(50, 0.9), point(100, 0.3, 0.2)]
    (run / "evaluation.json").write_text(json.dumps({"schema": "1.0", "points": points}))
    best = best_checkpoint(run)
    assert best is not None and best.name == "20"  # 50 is measured best, but has no checkpoint any more
    assert best_checkpoint(run / "nowhere") is None


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([], None),
        ([point(0, 0.9)], None),
        ([point(0, 0.9), point(8, 0.1)], 8),
        ([point(8, 0.2), point(16, 0.2)], 16),
        ([point(8, 0.2, 0.1), point(16, 0.15, -0.5)], 16),
        ([point(8, None, 0.2), point(16, None, 0.1)], 16),
    ],
)
def test_the_best_point_learned_most_and_forgot_least(points: list[dict[str, Any]], best: int | None) -> None:
    assert best_point(points) == best


def test_a_log_ends_where_the_run_goes_on(run: Path) -> None:
    truncate_log(run, 8)  # there is none yet
    lines = [json.dumps({"images_seen": images_seen}) + "\n" for images_seen in (4, 8, 12)]
    (run / "log.jsonl").write_text("".join(lines) + '{"images_se')
    truncate_log(run, 8)
    assert (run / "log.jsonl").read_text() == "".join(lines[:2])


@pytest.mark.parametrize("broken", [b"\0" * 64 + b"}\n", b'{"images_seen": 6, "lo\xff}\n', b"[]\n", b'{"step": 1}\n'])
def test_what_a_power_cut_left_of_a_log_is_left_out(run: Path, broken: bytes) -> None:
    lines = [json.dumps({"images_seen": images_seen}).encode() + b"\n" for images_seen in (4, 8)]
    (run / "log.jsonl").write_bytes(lines[0] + broken + lines[1])
    truncate_log(run, 8)
    assert (run / "log.jsonl").read_bytes() == b"".join(lines)


def test_a_run_belongs_to_the_content_of_its_base_and_vae(tmp_path: Path) -> None:
    for name in ("base", "same", "vae"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_bytes(b"one")
    base, same, vae = (str(tmp_path / name) for name in ("base", "same", "vae"))

    def recipe(base: str, vae: str | None = None) -> str:
        return train_recipe(TrainConfig(base=base, vae=vae), ["images"])

    before = recipe(base), recipe(base, vae)
    assert before[0] != before[1]
    assert before == (recipe(same), recipe(same, vae)), "where the models lie does not matter"
    (tmp_path / "vae" / "weights.safetensors").write_bytes(b"two")
    assert recipe(base) == before[0] and recipe(base, vae) != before[1]
    (tmp_path / "base" / "weights.safetensors").write_bytes(b"two")
    assert recipe(base) != before[0]
    assert train_recipe(TrainConfig(base=same), ["others"]) != before[0]
