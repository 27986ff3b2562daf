"""A run records what its last bits depend on beside its recipe, and says when it goes on elsewhere."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamloom.base.progress import silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.loop.distributed import SINGLE_PROCESS
from dreamloom.train.loop.loop import train
from dreamloom.train.loop.session import open_session
from dreamloom.train.run.environment import note_environment

HERE = {"torch": "2.15.0", "device": "cpu", "torch_threads": 1}


def noted(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "environments.json").read_text())["environments"]
    return found


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_run_says_that_it_goes_on_with_other_threads(
    tmp_path: Path,
    tiny_base: str,
    folder: Path,
    config: Callable[..., TrainConfig],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, run = config(base=tiny_base, max_train_steps=1), tmp_path / "run"
    torch.set_num_threads(1)
    train(folder, run, settings)
    dataset = read_dataset(folder, 32, 8, 1)
    said = []
    for count in (1, 2):
        torch.set_num_threads(count)
        with caplog.at_level(logging.WARNING), open_session(dataset, {}, run, settings, silent, SINGLE_PROCESS):
            said.append([message for message in caplog.messages if "last bits may differ" in message])
    assert said[0] == []
    assert said[1] == ["The run goes on elsewhere than it began (torch_threads 1, now 2), so its last bits may differ."]
    assert [(entry["images_seen"], entry["torch_threads"]) for entry in noted(run)] == [(0, 1), (2, 2)]
    assert noted(run)[0]["torch"] == torch.__version__ and noted(run)[0]["device"] == "cpu"


def test_only_changes_are_added_and_what_is_trained_again_counts_by_its_last(tmp_path: Path) -> None:
    for images_seen, threads in ((0, 4), (0, 1), (8, 1), (16, 2), (24, 2), (12, 1)):
        note_environment(tmp_path, images_seen, {**HERE, "torch_threads": threads})
    assert [(entry["images_seen"], entry["torch_threads"]) for entry in noted(tmp_path)] == [(0, 1)]
    note_environment(tmp_path, 12, {**HERE, "torch": "2.16.0"})
    assert [(entry["images_seen"], entry["torch"]) for entry in noted(tmp_path)] == [(0, "2.15.0"), (12, "2.16.0")]


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\xff\xfe", b"[]", b"[" * 100_000, b'{"environment', b'{"schema": "1.0", "environments": [{"seen": 1}]}'],
)
def test_a_damaged_note_ends_no_run(tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "environments.json").write_bytes(damaged)
    note_environment(tmp_path, 8, HERE)
    assert "where the run was trained before is not known" in caplog.text
    assert [entry["images_seen"] for entry in noted(tmp_path)] == [8]
