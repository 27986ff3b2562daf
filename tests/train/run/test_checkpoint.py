"""A checkpoint is whole or not there, gives back what was saved, and old ones make room, but for the best."""

import json
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.train.run.checkpoint import load, resume, save
from dreamloom.train.run.checksums import DamagedCheckpointError, check_files
from dreamloom.train.run.folder import best_checkpoint, list_checkpoints
from tests.powercut import PowerCut


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


FILES = ["average.safetensors", "checksums.b2", "optimizer.pt", "state.json", "weights.safetensors"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints, of 4 and of 8 images seen."""
    folder = tmp_path_factory.mktemp("run")
    for images_seen in (4, 8):
        save(folder, Counter(images_seen, average=True), 2)
    return folder


@pytest.fixture
def damaged(run: Path, tmp_path: Path) -> Path:
    """Another such run, to damage."""
    return Path(shutil.copytree(run, tmp_path / "run"))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(run: Path, damaged: Path, name: str, place: float, bit: int) -> None:
    file = damaged / "checkpoints" / "8" / name
    whole = bytearray((run / "checkpoints" / "8" / name).read_bytes())
    whole[int(place * len(whole))] ^= 1 << bit
    file.write_bytes(whole)
    try:
        with pytest.raises(DamagedCheckpointError, match=r"8 is damaged: .*; name another: .*checkpoints/4\."):
            load(damaged / "checkpoints" / "8", Counter(0))
    finally:
        shutil.copy(run / "checkpoints" / "8" / name, file)
    load(damaged / "checkpoints" / "8", Counter(0))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [0, 1, 0.5, None])
def test_a_file_that_is_cut_short_or_gone_is_named(damaged: Path, name: str, size: float | None) -> None:
    file = damaged / "checkpoints" / "8" / name
    if size is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: int(size if size >= 1 else size * file.stat().st_size)])
    with pytest.raises(DamagedCheckpointError, match=name.replace(".", r"\.")):
        load(file.parent, Counter(0))


def test_a_resumed_run_goes_on_from_the_checkpoint_before_a_damaged_one_and_says_so(
    damaged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = damaged / "checkpoints"
    (checkpoints / "8" / "weights.safetensors").write_bytes(b"")
    kept = {file.name: file.read_bytes() for file in (checkpoints / "8").iterdir()}
    trainer = Counter(0)
    with caplog.at_level(logging.WARNING):
        resume(damaged, trainer)
    assert trainer.loaded["images_seen"] == 4
    assert "8 is damaged: weights.safetensors" in caplog.text and "goes on from the one before" in caplog.text
    assert best_checkpoint(damaged) == checkpoints / "4"
    assert {file.name: file.read_bytes() for file in (checkpoints / "damaged-8").iterdir()} == kept, "nothing is lost"
    save(damaged, Counter(8, average=True), 2)
    (checkpoints / "8" / "optimizer.pt").unlink()
    resume(damaged, trainer)
    assert {path.name for path in checkpoints.iterdir()} == {"4", "damaged-8", "damaged-8-2"}


def test_where_none_is_left_it_is_said_and_nothing_is_moved(damaged: Path) -> None:
    for name in ("4", "8"):
        (damaged / "checkpoints" / name / "state.json").write_text("{}")
    shutil.rmtree(damaged / "checkpoints" / "8")
    with pytest.raises(UserError, match=r"4 is damaged: state\.json .*; there is none before it, so restore a copy"):
        resume(damaged, Counter(0))
    assert [path.name for path in (damaged / "checkpoints").iterdir()] == ["4"]
    resume(damaged.parent, trainer := Counter(0))
    assert not trainer.loaded, "without a checkpoint, it starts from the base"


def test_a_full_gpu_and_a_disk_that_does_not_answer_are_no_damage(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Counter(0)
    for error, raised in ((torch.OutOfMemoryError(), torch.OutOfMemoryError), (OSError(116, "stale"), UserError)):

        def fail(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(trainer, "load_state_dict", fail)
        with pytest.raises(raised):
            resume(damaged, trainer)
    assert [path.name for path in list_checkpoints(damaged)] == ["4", "8"]


def as_of_an_older_release(checkpoint: Path) -> Path:
    (checkpoint / "checksums.b2").unlink()
    (checkpoint / "state.json").write_text('{\n  "images_seen": 8\n}\n')
    return checkpoint


def test_a_checkpoint_without_checksums_is_read_where_its_release_wrote_none(damaged: Path) -> None:
    old = as_of_an_older_release(damaged / "checkpoints" / "8")
    load(old, trainer := Counter(0))
    assert trainer.loaded["images_seen"] == 8


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "state.json"])
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_broken_one_of_an_older_release_is_said(damaged: Path, name: str, share: float) -> None:
    file = as_of_an_older_release(damaged / "checkpoints" / "8") / name
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(DamagedCheckpointError, match=r"8 is damaged: .*can't be read"):
        load(file.parent, Counter(0))


@pytest.mark.skipif(shutil.which("b2sum") is None, reason="there is no b2sum")
def test_b2sum_checks_the_checksums(run: Path) -> None:
    said = subprocess.run(
        ["b2sum", "-c", "checksums.b2"], cwd=run / "checkpoints" / "8", capture_output=True, text=True
    )
    assert said.stdout.splitlines() == [f"{name}: OK" for name in FILES if name != "checksums.b2"]


def test_a_power_cut_leaves_the_newest_checkpoint_or_the_one_before_whole(power: PowerCut, tmp_path: Path) -> None:
    save(power.root, Counter(4, average=True), 1)
    with power.watching():
        save(power.root, Counter(8, average=True), 1)
    for disk, ended in power.left_behind(tmp_path / "found"):
        newest = list_checkpoints(disk)[-1]
        check_files(newest)
        assert newest.name == "8" or not ended
