"""Whatever changes, the training folder that is changed in its place is the one that is made from nothing."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamloom.curate.assemble import balance
from dreamloom.curate.choose import choose
from dreamloom.curate.config import BalanceConfig, ChooseConfig
from dreamloom.curate.hand_changes import find_hand_changes
from dreamloom.curate.manifest import content_digest, manifest_path, read_manifest
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Collection, Status
from tests.curate.test_assemble import files_of

CAPTIONS = [
    "a red car",
    "a blue car",
    "A Red Car",
    "a car.",
    "a dog",
    "two dogs",
    "a dog on a street " + "and on " * 40,
]
STEPS = 6


def draw(chance: random.Random) -> dict[str, Any]:
    broken = chance.random() < 0.1
    return {"status": Status.HTTP_404} if broken else {"text": chance.choice(CAPTIONS), "sha256": f"{chance.random()}"}


def change(rows: list[dict[str, Any]], chance: random.Random) -> None:
    for _ in range(2):
        what, place = chance.choice(["add", "add", "remove", "rename"]), chance.randrange(len(rows))
        if what == "add":
            rows.append(draw(chance))
        elif what == "remove" and len(rows) > 20:
            rows.pop()
        else:
            rows[place] = draw(chance)


def test_a_folder_changed_in_its_place_is_the_one_made_from_nothing(
    make_collection: Callable[..., Collection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamloom.curate.place.SMALL", 2)
    monkeypatch.setattr("dreamloom.base.files.tree_state.SETTLED_NS", -(10**12))  # what was just written may be trusted
    monkeypatch.setattr(os, "fsync", lambda _: None)
    chance, config = random.Random(3), BalanceConfig(held_out=0.1)
    tables = {name: [draw(chance) for _ in range(24)] for name in ("own", "web")}
    inodes = set()
    for step in range(STEPS):
        change(tables[chance.choice(["own", "web"])], chance)
        roles = (Role.TRAINING, Role.GROUND_TRUTH)
        sources = [
            Source(make_collection(name, tables[name], 8), role) for name, role in zip(tables, roles, strict=True)
        ]
        choose(sources, ChooseConfig())
        made = [balance(sources, config, tmp_path / name) for name in ("work", f"anew {step}")]
        inodes.add((tmp_path / "work" / "dataset").stat().st_ino)
        assert (made[0].kept, made[0].dropped, made[0].bytes_written) == (
            *(made[1].kept, made[1].dropped),
            made[1].bytes_written,
        )
        for folder in ("dataset", "heldout"):
            assert files_of(tmp_path / "work" / folder) == files_of(tmp_path / f"anew {step}" / folder)
        both = [manifest_path(tmp_path / name) for name in ("work", f"anew {step}")]
        assert read_manifest(both[0]).equals(read_manifest(both[1]))
        assert content_digest(both[0]) == content_digest(both[1])
        assert find_hand_changes(tmp_path / "work") == []
    assert len(inodes) < STEPS  # mostly changed in its place
