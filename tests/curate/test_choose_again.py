"""Where few images changed, the choices are those that are made from nothing, and only few parts are written."""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamloom.base.stage import Summary
from dreamloom.curate.choose import choose, is_current
from dreamloom.curate.config import ChooseConfig, ScoreConfig
from dreamloom.curate.seen_images import seen_file
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import CaptionKind, Collection, Status, Table

ROLES = {"own": Role.TRAINING, "web": Role.GROUND_TRUTH, "more": Role.GROUND_TRUTH}
SEED, STEPS = 5, 8
PART_ROWS = 4
KINDS = np.eye(8, dtype=np.float16)
Image = dict[str, Any]
Images = dict[str, list[Image]]


def draw(chance: random.Random, name: str) -> Image:
    """An image that may repeat others: of few bytes, hashes that few bits tell apart, and few embeddings."""
    phash = chance.choice([0, -1, 0x0F0F0F0F]) ^ sum(1 << chance.randrange(6) for _ in range(chance.randrange(3)))
    if chance.random() < 0.7:
        phash = chance.getrandbits(63)
    return {
        "key": f"{name}-{chance.getrandbits(40):012x}",
        "sha256": chance.choice(["a", "b", None]) if chance.random() < 0.2 else f"{chance.getrandbits(60)}",
        "url": chance.choice([None, None, "https://example.com/one"]),
        "width": chance.choice([64, 512]),
        "bytes": chance.choice([900, 1000]),
        "licence": chance.choice(["by", "by-nc"]),
        "phash": phash,
        "kind": chance.randrange(2),
    }


def change(images: Images, chance: random.Random) -> None:
    name = chance.choice(list(images))
    rows, what = images[name], chance.choice(["append", "append", "insert", "remove", "replace"])
    place = chance.randrange(len(rows))
    if what == "append":
        rows.append(draw(chance, name))
    elif what == "insert":
        rows.insert(chance.randrange(len(rows) - PART_ROWS, len(rows)), draw(chance, name))
    elif what == "remove" and len(rows) % PART_ROWS != 1:
        rows.pop(-1 if chance.random() < 0.7 else place)
    elif what == "replace":
        rows[place] |= {"key": rows[place]["key"]} if chance.random() < 0.5 else draw(chance, name)


def write(root: Path, images: Images) -> list[Source]:
    """Writes records and scores as stages would, those parts that are not there yet as they are."""
    for name, rows in images.items():
        collection, config = Collection(root / name), ScoreConfig()
        parts = {f"{n // PART_ROWS:05d}": rows[n : n + PART_ROWS] for n in range(0, len(rows), PART_ROWS)}
        for table in (Table.RECORDS, Table.SCORES):
            collection.remove_parts(table, keep=parts)
        for part, members in parts.items():
            if collection.recipe(Table.RECORDS, part) == str(members):
                continue
            common: Image = {"status": Status.OK, "height": 64, "text_kind": CaptionKind.NONE}
            names = ("key", "sha256", "url", "width", "bytes", "licence")
            records = [common | {name: row[name] for name in names} for row in members]
            scores = [{"key": row["key"], "phash": row["phash"], "embedding": KINDS[row["kind"]]} for row in members]
            for table, content in ((Table.RECORDS, records), (Table.SCORES, scores)):
                summary = Summary(rows=len(content), kept=len(content))
                collection.write(table, part, content, recipe=str(members), config=config, summary=summary)
    return [Source(Collection(root / name), ROLES[name]) for name in images]


def choices(sources: list[Source]) -> dict[str, dict[str, str | None]]:
    collections = [source.collection for source in sources]
    return {c.name: {part: c.digest(Table.CHOICES, part) for part in c.parts(Table.CHOICES)} for c in collections}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DREAMLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # of thousands of small files
    return tmp_path / "cache"


def test_choices_are_those_made_from_nothing_also_after_a_kill(tmp_path: Path, cache: Path) -> None:
    chance, config = random.Random(SEED), ChooseConfig(exclude_licences=["nc"], resolution=64)
    images = {name: [draw(chance, name) for _ in range(10)] for name in ROLES}
    choose(write(tmp_path / "grown", images), config)
    parts_made = []
    for step in range(STEPS):
        change(images, chance)
        sources, anew = write(tmp_path / "grown", images), write(tmp_path / f"anew {step}", images)
        expected = (choose(anew, config).dropped, choices(anew))
        before = {file: file.read_bytes() for file in (tmp_path / "grown").glob("*/choices/*.parquet")}
        notes = {file: file.read_bytes() for file in cache.glob("choices/*")}
        summary = choose(sources, config)
        assert (summary.dropped, choices(sources)) == expected and is_current(sources, config)
        parts_made.append(summary.parts_done)
        if step % 2:  # as if it had been killed: some parts were written, and nothing was noted
            for file in filter(Path.exists, chance.sample(sorted(before), len(before) // 2)):
                file.write_bytes(before[file])
            shutil.rmtree(cache / "choices")
            shutil.rmtree(cache / "results", ignore_errors=True)
            for file, content in notes.items():
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(content)
            assert (choose(sources, config).dropped, choices(sources)) == expected
    assert sum(made < 4 for made in parts_made) > STEPS // 2  # of 9 parts


def test_what_choose_saw_is_only_believed_beside_its_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, config = random.Random(1), ChooseConfig()
    images = {name: [draw(chance, name) for _ in range(18)] for name in ROLES}
    sources = write(tmp_path / "c", images)
    assert choose(sources, config).parts_done == 15
    file = seen_file(sources)
    assert file is not None and file.exists()
    images["web"].append(draw(chance, "web"))
    sources = write(tmp_path / "c", images)
    file.write_bytes(b"damaged")
    assert choose(sources, config).parts_done == 10 and not file.exists()  # all of ground truth
    assert choose(sources, config).parts_done == 0
    images["web"].append(draw(chance, "web"))
    assert choose(write(tmp_path / "c", images), config).parts_done < 10
    assert choose(sources, ChooseConfig(min_similarity=0.5)).parts_done > 9
    monkeypatch.setattr("dreamloom.curate.deciding.VERSION", 99)  # a release with other rules
    assert not is_current(sources, config) and choose(sources, config).parts_before == 0
