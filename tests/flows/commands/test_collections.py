"""`dreamloom collection`: what is listed, and that no damage passes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dreamloom.flows.commands.cli import run
from dreamloom.scrape.collection import Collection, Table
from tests.scrape.datasets.test_collection import state


def test_collections_are_listed_and_damage_is_found(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(small.file), "--until", "ingest"]) == 0
    squares = small.workspace / "collections" / "squares"
    assert run(["ingest", "collection", str(small.folder / "shared" / "boxes"), "--path", str(squares)]) == 0
    capsys.readouterr()

    def listed(folder: Path) -> list[dict[str, Any]]:
        assert run(["collection", "list", str(folder), "--json"]) == 0
        return list(json.loads(capsys.readouterr().out))

    rows = listed(small.file)
    assert [(r["name"], r["kind"], r["images"], Path(r["from"]).name) for r in rows] == [
        ("circles", "folder", 6, "circles"),
        ("squares", "folder", 6, "squares"),
    ]
    assert rows == listed(small.workspace) and rows[1:] == listed(squares)
    (box,) = listed(small.folder / "shared")
    assert (box["name"], box["kind"], box["from"]) == ("boxes", "collection", str(squares))
    assert box["size"] > sum(file.stat().st_size for file in squares.glob("images/*/*"))
    assert run(["collection", "list", str(small.folder / "circles")]) == 2
    assert "There is no collection in" in capsys.readouterr().err

    before = state(squares)
    copied = small.folder / "shared" / "copied"
    unfinished = copied.with_name(".tmp-copy-copied") / "images" / "00000"
    unfinished.mkdir(parents=True)
    (unfinished / "old.png").write_bytes(b"of a collection that changed since")
    first, second, *_ = Collection(squares).read(Table.RECORDS)["image"].to_pylist()
    (unfinished / Path(first).name).write_bytes((squares / first).read_bytes())
    kept = (unfinished / Path(first).name).stat().st_ino
    assert run(["collection", "copy", str(squares), str(copied)]) == 0
    for folder in ("records", "images"):
        wanted = {p.relative_to(squares): p.read_bytes() for p in squares.glob(f"{folder}/**/*") if p.is_file()}
        assert wanted == {p.relative_to(copied): p.read_bytes() for p in copied.glob(f"{folder}/**/*") if p.is_file()}
    assert (copied / first).stat().st_ino == kept and not (copied / second).samefile(squares / second)
    assert run(["collection", "copy", str(squares), str(copied)]) == 2
    assert "exists, and stays as it is" in capsys.readouterr().err
    assert run(["collection", "verify", str(squares)]) == 0
    assert "6 images and all tables are as they were stored" in capsys.readouterr().out
    assert state(squares) == before
    whole = bytearray((squares / first).read_bytes())
    whole[len(whole) // 2] ^= 1
    (squares / first).write_bytes(whole)
    (squares / second).unlink()
    (squares / "records" / "00001.parquet").write_bytes(b"PAR1")
    assert run(["collection", "verify", str(squares)]) == 2
    told = capsys.readouterr()
    assert f"{first}: has other bytes" in told.out and f"{second}: is not there" in told.out
    assert "records/00001.parquet: " in told.out and "3 files of" in told.err
    assert run(["collection", "copy", str(squares), str(small.folder / "shared" / "damaged")]) == 2
    assert not (small.folder / "shared" / "damaged").exists()


def test_a_collection_goes_when_nobody_uses_it_and_leaves_what_is_the_users(
    small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    squares, other = small.workspace / "collections" / "squares", small.folder / "other"
    library = {"kind": "collection", "role": "training", "path": str(squares)}
    other.mkdir()
    content = {"name": "b", "workspace": "work", "sources": {"boxes": library}}
    base = {"train": {"base": str(small.load().train.base)}}
    (other / "project.yaml").write_text(json.dumps(content | base))
    source = small.load().sources["squares"].model_dump(mode="json", exclude_unset=True)

    def removed(*flags: str) -> tuple[int, str]:
        code = run(["collection", "remove", str(squares), *flags])
        told = capsys.readouterr()
        return code, told.out + told.err

    for project in (small.file, other / "project.yaml"):
        assert run(["run", str(project), "--until", "ingest"]) == 0
    before = state(squares)
    code, text = removed("--yes")
    assert code == 2 and str(small.file) in text and "the project b in" in text and "nothing was removed" in text
    small.change("sources", "squares", to=None)
    shutil.rmtree(other)
    assert "the project small in" in removed("--yes")[1], "it has not run since"
    assert run(["run", str(small.file), "--until", "ingest"]) == 0
    assert state(squares) == before

    (squares / "notes.txt").write_text("mine")
    (squares / "images" / "00000" / "photo.png").write_bytes(b"mine")
    assert run(["drop", str(squares), "a red square_(0)"]) == 0
    before, originals = state(squares), state(small.folder / "squares")
    code, text = removed()
    assert code == 0 and "nothing was removed" in text and state(squares) == before
    code, text = removed("--yes")
    assert code == 0 and "decisions" in text and "files of yours" in text
    left = {path.relative_to(squares).as_posix() for path in squares.rglob("*") if path.is_file()}
    assert left == {"notes.txt", "images/00000/photo.png", "decisions/00000.parquet"}
    assert state(small.folder / "squares") == originals
    assert removed()[0] == 2, "it is no collection any more"
    small.change("sources", "squares", to=source)
    assert run(["run", str(small.file), "--until", "choose"]) == 0
    choices = Collection(squares).read(Table.CHOICES)["choice"].to_pylist()
    assert sorted(choices) == ["decided"] + ["kept"] * 5
