"""What a training step says of its run."""

import json
from pathlib import Path

from dreamloom.flows.chain.train_steps import _trained
from dreamloom.train.run.folder import TrainSummary


def point(images_seen: int, learned: float) -> dict[str, object]:
    return {"images_seen": images_seen, "learned": {"change": learned, "error": None}, "forgotten": None}


def test_measures_of_the_last_checkpoint_are_not_told_as_those_of_the_best(tmp_path: Path) -> None:
    for images in (8, 16):
        (tmp_path / "checkpoints" / str(images)).mkdir(parents=True)
    summary = TrainSummary(True, 4, 0, images_seen=16, total_images=16, steps=4, learned=0.1)
    points = [point(0, 0.0), point(8, 0.2), point(16, 0.1)]
    (tmp_path / "evaluation.json").write_text(json.dumps({"points": points}))
    said = "the best, which export takes, is the one after 8 images"
    assert said in _trained(summary, tmp_path, is_new=True).message
    points[1] = point(8, 0.05)
    (tmp_path / "evaluation.json").write_text(json.dumps({"points": points}))
    assert "the best" not in _trained(summary, tmp_path, is_new=True).message


def test_a_run_that_was_stopped_while_it_loads_has_saved_nothing(tmp_path: Path) -> None:
    stopped = _trained(TrainSummary(False, 4, 0), tmp_path, is_new=True)
    assert "stopped before the first step; run again to go on" in stopped.message and not stopped.finished
