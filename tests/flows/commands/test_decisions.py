"""The commands that decide about single images: what they say, write and leave alone."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from dreamloom.caption.sidecar import read_caption
from dreamloom.flows.commands.cli import run
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with one source of two images; nothing is chosen yet."""
    source, root = tmp_path / "pictures", tmp_path / "work" / "collections" / "cats"
    source.mkdir()
    for name in ("a cat", "a dog"):
        Image.new("RGB", (40, 40), "red" if name == "a cat" else "blue").save(source / f"{name}.png")
    ingest_folder(Collection(root), FolderConfig(path=source), read_caption)
    return tmp_path / "work"


def said(words: Sequence[str | Path], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert run(list(map(str, words))) == code
    shown = capsys.readouterr()
    return shown.out if code == 0 else shown.err


def columns(table: str, *names: str) -> list[str]:
    """The texts in columns of a printed table, without blanks: long texts are folded, by the length of paths."""
    heading = next(line for line in table.splitlines() if line.startswith("┃"))
    places = [[cell.strip() for cell in heading.split("┃")].index(name) for name in names]
    rows = [line.split("│") for line in table.splitlines() if line.startswith("│")]
    return ["".join("".join(row[place].split()) for row in rows) for place in places]


def counting(workspace: Path) -> dict[tuple[str, str | None], int]:
    found: dict[tuple[str, str | None], int] = {}
    for word in Collection(workspace / "collections" / "cats").decisions().counting():
        found[str(word.what), word.value] = found.get((str(word.what), word.value), 0) + 1
    return found


def test_each_command_decides_and_undo_takes_it_back(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "drop, by hand (no cats)" in said(["drop", workspace, "a cat", "--reason", "no cats", "--dry-run"], capsys)
    assert counting(workspace) == {}
    assert said(["drop", workspace, "a cat"], capsys).startswith("decided: 1 of cats")
    assert said(["drop", workspace, "a cat"], capsys) == "that is decided already\n"
    said(["keep", workspace / "collections" / "cats", "a dog"], capsys)
    said(["recaption", workspace, "a dog", "--caption", "a big dog"], capsys)
    said(["crop", workspace, "a dog", "--box", "0,0,0.5,1", "--no-flip"], capsys)
    said(["rate", workspace, "*", "--multiply", "2", "--loss-scale", "0.5"], capsys)
    everything = {("drop", None): 1, ("keep", None): 1, ("caption", "a big dog"): 1, ("crop", "0,0,0.5,1"): 1}
    everything |= {("flip", "no"): 1, ("multiply", "2"): 2, ("loss_scale", "0.5"): 2}
    assert counting(workspace) == everything
    assert said(["undo", workspace], capsys).startswith("taken back: 4 of cats")
    assert said(["undo", workspace, "a dog", "--what", "caption"], capsys).startswith("taken back: 1 of cats")
    assert counting(workspace).keys() == everything.keys() - {
        ("multiply", "2"),
        ("loss_scale", "0.5"),
        ("caption", "a big dog"),
    }


def test_a_rule_does_not_overrule_a_hand(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(["keep", workspace, "a cat"], capsys)
    told = said(["drop", workspace, "--where", "source = 'cats' and width > 4"], capsys)
    assert told.splitlines() == ["decided: 2 of cats", "1 of them do not count, as a hand decided otherwise"]
    assert counting(workspace) == {("keep", None): 1, ("drop", None): 1}
    assert (
        said(["drop", workspace, "--where", "width > 4000"], capsys)
        == "no image meets the condition; nothing was decided\n"
    )


def test_a_condition_leaves_stderr_to_errors(workspace: Path) -> None:
    command = [sys.executable, "-m", "dreamloom", "drop", str(workspace), "--where", "width > 4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "decided: 2 of cats\n", "")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_what_is_exported_decides_the_same_elsewhere(
    workspace: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    said(["recaption", workspace, "a dog", "--caption", 'a "big", dog', "--reason", "it is"], capsys)
    said(["keep", workspace, "a cat"], capsys)
    said(["drop", workspace, "--where", "width > 4"], capsys)
    table = workspace / f"table{suffix}"
    assert said(["decisions", "export", workspace, table], capsys) == f"4 decisions: {table}\n"
    before = Collection(workspace / "collections" / "cats").decisions().counting()
    for part in (workspace / "collections" / "cats" / "decisions").glob("*.parquet"):
        part.unlink()
    assert said(["decisions", "import", workspace, table], capsys) == "imported: 4 of cats\n"
    after = Collection(workspace / "collections" / "cats").decisions().counting()
    assert sorted(word[:1] + word[2:] for word in after) == sorted(word[:1] + word[2:] for word in before)
    files, reasons = columns(said(["decisions", "list", workspace], capsys), "file", "reason")
    assert "/acat.png" in files
    assert reasons == "itis"
    assert "exists" in said(["decisions", "export", workspace, table], capsys, 2)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("what,file\nshrink,a cat", "row 2: there is no decision 'shrink'"),
        ("what,file\ndrop,a cow", "No image is called a cow"),
        ("what,source,key\ndrop,cows,123", "row 2: there is no source cows; there are cats"),
        ("what\ndrop", "row 2 names no image"),
        ("what,file,value\ncrop,a cat,1", "row 2: '1' is no crop"),
        ("what,file,caption\ncaption,a cat,a big cat", "row 2: decisions have no column caption"),
        ("what,file,Value\ncaption,a cat,a big cat", "did you mean value?"),
        ("what,file\ncaption,a cat", "row 2 has no caption"),
        ('what,file\ndrop,"a', "row 2 can't be read"),
    ],
)
def test_a_wrong_row_decides_nothing(
    workspace: Path, capsys: pytest.CaptureFixture[str], row: str, sentence: str
) -> None:
    table = workspace / "table.csv"
    table.write_text(row)
    assert sentence in said(["decisions", "import", workspace, table], capsys, 2)
    assert counting(workspace) == {}


def test_a_shortened_key_is_understood_and_one_that_is_gone_is_told(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = Collection(workspace / "collections" / "cats").read(Table.RECORDS)["key"][0].as_py()
    table = workspace / "table.csv"
    table.write_text(f"what,source,key\ndrop,cats,{key[:12]}\ndrop,cats,gone", encoding="utf-8-sig")
    assert said(["decisions", "import", workspace, table], capsys).splitlines() == [
        "imported: 2 of cats",
        "1 of them are of images that are not here now; they count when these come back",
    ]
    decided = Collection(workspace / "collections" / "cats").decisions().counting()
    assert {word.key for word in decided} == {key, "gone"}


def test_what_is_no_project_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a.jpg is no project, workspace or collection" in said(["drop", "a.jpg"], capsys, 2)
