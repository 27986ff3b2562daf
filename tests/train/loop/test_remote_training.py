"""Training from shards in S3: the same bits as from a local folder, through kills, outages and with a small cache."""

import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.files import remote
from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.loop import train
from dreamloom.train.run.folder import read_settings
from tests.s3 import S3
from tests.train.loop.test_loop import HOUSE, KILLER, assert_same, outcome

Config = Callable[..., TrainConfig]

SETTINGS: dict[str, Any] = {
    "max_train_steps": 5,
    "flip_p": 0.5,
    "crop_jitter": 0.1,
    "crops_per_image": 2,
    "evaluate_every_n_steps": 4,
    "shard_cache_gb": 2.5e-5,
}
"""A cache of 25 kB, in which two of the shards have room."""


@pytest.fixture(scope="module")
def shards(folder: Path, heldout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training folder and the held-out images in shards of two images, with their control files."""
    root = tmp_path_factory.mktemp("shards")
    for name, images in (("set", folder), ("held", heldout)):
        for inside in sorted({file.parent for file in images.rglob("*.png")}):
            target = root / name / inside.relative_to(images)
            target.mkdir(parents=True)
            files = sorted(inside.glob("*.png"))
            for start in range(0, len(files), 2):
                with tarfile.open(target / f"{start:05d}.tar", "w") as tar:
                    for file in files[start : start + 2]:
                        tar.add(file, file.name)
            for control in inside.glob("*.txt"):
                (target / control.name).write_bytes(control.read_bytes())
    return root


@pytest.fixture
def uploaded(shards: Path, s3: type[S3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[S3]:
    """The server with these shards; nothing is known of them yet."""
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_FIRST_WAIT_S", 0.001)
    files = (file for file in shards.rglob("*") if file.is_file())
    s3.objects |= {file.relative_to(shards).as_posix(): file.read_bytes() for file in files}
    return s3


@pytest.mark.slow
def test_killed_at_any_write_a_run_from_s3_ends_with_the_bits_of_a_local_one(
    shards: Path, uploaded: type[S3], tiny_base: str, tmp_path: Path, config: Config
) -> None:
    settings = config(base=tiny_base, **SETTINGS)
    train(shards / "set", tmp_path / "local" / "run", settings, shards / "held")
    uploaded.refusing = [503]
    run = tmp_path / "run"
    arguments = ["s3://bucket/set", str(run), "s3://bucket/held", settings.model_dump_json()]
    killer = "import s3fs" + KILLER.replace("(3, 17, 35, 50, 61, 1_000_000)", "(8, 50, 1_000_000)")
    process = subprocess.run(
        [sys.executable, "-c", killer, *arguments], stdout=subprocess.PIPE, text=True, cwd=HOUSE, timeout=600
    )
    ends = [int(line) for line in process.stdout.split()]
    assert len(ends) == 3 and ends[0] == -signal.SIGKILL, "while shards are fetched, then in the run"
    assert ends[-1] == 0 and uploaded.refusing == []
    assert_same(outcome(run), outcome(tmp_path / "local" / "run"))
    assert read_settings(run)["folder"] == "s3://bucket/set"
    assert uploaded.asked, "what was not in the cache was asked for by its place"
    fetched = [name for name in uploaded.got if name.endswith(".tar")]
    assert len(fetched) <= len(set(fetched)) + 4, "a kill loses what was fetched at that moment"


def test_what_goes_wrong_with_shards_in_s3_is_a_sentence_and_leaves_no_run(
    uploaded: type[S3], tiny_base: str, tmp_path: Path, config: Config
) -> None:
    settings = config(base=tiny_base, shard_cache_gb=0.0, max_train_steps=1)
    address, run = Path("s3://bucket/set"), tmp_path / "run"
    changed: dict[str, bytes] = {}

    def change(done: int, total: int | None, note: str = "") -> None:
        if note == "reading shards" and done == total:  # what they hold is known, and they are read again for the VAE
            changed.update({name: repacked(data) for name, data in uploaded.objects.items() if name.endswith(".tar")})
            uploaded.objects.update(changed)

    with pytest.raises(UserError, match=r"s3://bucket/set/.*\.tar changed while it was in use"):
        train(address, run, settings, None, change)

    def lose(done: int, total: int | None, note: str = "") -> None:
        uploaded.refusing = [403]

    with pytest.raises(UserError, match=r"can't be read \((The token has expired|Forbidden)"):
        train(address, run, settings, None, lose)
    uploaded.refusing = []
    assert changed and not run.exists()
    with pytest.raises(UserError, match="s3://bucket/run is an address, and a run is written to a folder"):
        train(address, "s3://bucket/run", settings)


def repacked(shard: bytes) -> bytes:
    """A shard with the same members, of the same size, but other pixels."""
    return shard.replace(b"IDAT", b"IDAt")
