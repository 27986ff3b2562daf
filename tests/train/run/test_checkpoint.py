"""A checkpoint is whole or not there, gives back what was saved, and old ones make room, but for the best."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamloom.base.errors import UserError
from dreamloom.train.run.checkpoint import load, save
from dreamloom.train.run.folder import list_checkpoints


class Counter:
    """The smallest thing that a checkpoint can be made of."""

    def __init__(self, images_seen: int, average: bool = False) -> None:
        self.images_seen = images_seen
        self.device = torch.device("cpu")
        self.weights = {"unet.w": torch.full((2, 3), float(images_seen)).t()}
        self.average = {"unet.w": torch.zeros(3, 2)} if average else None
        self.loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "images_seen": self.images_seen,
            "weights": self.weights,
            "average": self.average,
            "optimizer": {"step": torch.tensor(self.images_seen)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = state


@pytest.mark.parametrize("average", [True, False])
def test_what_is_saved_is_loaded(tmp_path: Path, average: bool) -> None:
    path = save(tmp_path, Counter(8, average), 1)
    other = Counter(0)
    load(path, other)
    assert other.loaded["images_seen"] == 8 and ("average" in other.loaded) == average
    assert torch.equal(other.loaded["weights"]["unet.w"], torch.full((3, 2), 8.0))
    assert other.loaded["optimizer"]["step"] == 8


def test_old_ones_make_room_but_for_the_best(tmp_path: Path) -> None:
    for images_seen in (4, 8):
        save(tmp_path, Counter(images_seen), 2)
    points = [{"images_seen": 4, "learned": {"change": 0.5}, "forgotten": None}]
    (tmp_path / "evaluation.json").write_text(json.dumps({"schema": "1.0", "points": points}))
    for images_seen in (12, 16):
        save(tmp_path, Counter(images_seen), 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["4", "12", "16"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "state.json"])
def test_a_broken_one_is_said(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, Counter(8), 1)
    (path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"The checkpoint .* can't be read .*; remove it to resume from the one before"):
        load(path, Counter(0))
