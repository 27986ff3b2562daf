"""caption convert and caption edit: what they make, what they say, and what they leave alone."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamloom.flows.commands.cli import run
from dreamloom.scrape.collection import Collection, Table

MODELS = Path(__file__).parents[3] / "demo" / "models"
NAMES = ["a picture of a man_1.png", "a mannequin in a [red] room_1.png", "a man, a man_1.png"]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / name)
    return folder


@pytest.fixture
def collection(mine: Path) -> Collection:
    """The same, captioned by their names; no model is asked."""
    assert run(["ingest", "folder", "man", "--path", str(mine)]) == 0
    assert run(["caption", "man"]) == 0
    return Collection(mine.parent / "man")


def said(tokens: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    capsys.readouterr()
    assert run(tokens) == code
    out, err = capsys.readouterr()
    return err if code else out


def captions(collection: Collection) -> dict[str, str]:
    """Caption before the edits → caption."""
    rows = collection.read(Table.CAPTIONS, columns=["unedited", "caption"]).to_pylist()
    return {row["unedited"]: row["caption"] for row in rows}


def test_convert_says_what_it_made_and_where_its_log_is(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(["caption", "convert", "mine", "--from", "filename", "--to", "txt"], capsys)
    assert "convert mine: 3 images, 3 with captions" in out
    assert "files made 3, right already 0, skipped 0" in out
    assert (mine / "a man, a man_1.txt").read_text() == "a man, a man"
    assert "made\ta man, a man_1.txt" in (mine.parent / "dreamloom-mine-captions.log").read_text()
    out = said(
        ["caption", "convert", "mine", "--from", "txt", "--to", "kohya", "--output", "new", "--log", "l"], capsys
    )
    assert "files made 4, right already 0" in out
    assert (mine.parent / "new" / "meta.json").is_file()
    assert "log: l" in out


def test_convert_wants_a_place_for_what_is_no_sidecar(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said_so = said(["caption", "convert", "mine", "--from", "filename", "--to", "kohya"], capsys, code=2)
    assert said_so == "kohya needs a folder of its own, as originals stay as they are; name one: --output.\n"
    assert "choose from" in said(["caption", "convert", "mine", "--from", "x", "--to", "txt"], capsys, code=2).lower()


RULES = ["--strip", "a picture of", "--replace.a man", "john doe", "--deduplicate"]
WANTED = {
    "a picture of a man": "john doe",
    "a mannequin in a [red] room": "a mannequin in a [red] room",
    "a man, a man": "john doe",
}


def test_a_dry_run_shows_before_and_after_and_writes_nothing(
    mine: Path, collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(mine.parent.rglob("*"))
    for place in ("mine", "man"):
        out = said(["caption", "edit", place, *RULES, "--dry-run"], capsys)
        assert "2 of 3 captions change; nothing was written" in out
        assert any("a picture of a man" in line and "john doe" in line for line in out.splitlines())
        assert "mannequin" not in out
    out = said(["caption", "edit", "mine", "--prefix", "x", "--dry-run"], capsys)
    assert "x a mannequin in a [red] room" in " ".join(out.replace("│", " ").split())
    assert sorted(mine.parent.rglob("*")) == before


def test_a_collection_keeps_what_captions_were_and_takes_edits_back(
    collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {text: text for text in WANTED}
    assert captions(collection) == plain
    assert "2 of 3 captions change" in said(["caption", "edit", "man", *RULES], capsys)
    assert captions(collection) == WANTED
    out = said(["caption", "edit", "man", "--prefix", "photo of"], capsys)
    assert "3 of 3 captions change" in out
    assert 'undone: {"strip":["a picture of"],"replace":{"a man":"john doe"},"deduplicate":true}' in out
    assert captions(collection) == {text: f"photo of {text}" for text in WANTED}
    assert "undone" not in said(["caption", "edit", "man", "--prefix", "photo of"], capsys)
    assert 'undone: {"prefix":"photo of"}' in said(["caption", "edit", "man", "--undo"], capsys)
    assert captions(collection) == plain


def test_a_folder_is_edited_into_a_new_one(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in mine.iterdir()}
    out = said(["caption", "edit", "mine", *RULES, "--output", "new"], capsys)
    assert "captions changed 2" in out
    names = ["a mannequin in a [red] room.png", "john doe.png", "john doe_(2).png"]
    assert sorted(path.name for path in (mine.parent / "new").glob("*.png")) == names
    assert {path: path.read_bytes() for path in mine.iterdir()} == before


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (["mine"], "Name a rule, such as --prefix, or --undo alone"),
        (["mine", "--undo", "--prefix", "x"], "Name a rule, such as --prefix, or --undo alone"),
        (["mine", "--undo"], "mine is not a collection, so there are no edits to undo."),
        (["mine", "--prefix", "x"], "filename needs a folder of its own"),
        (["mine", "--prefix", "x", "--to", "txt"], "Edited captions need a folder of their own"),
        (["nowhere", "--prefix", "x"], "nowhere is not a folder; name a collection"),
        (["mine", "--template", "{nme}"], "--template: {nme} is not known"),
    ],
)
def test_what_can_not_be_edited_is_a_sentence(
    mine: Path, tokens: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in said(["caption", "edit", *tokens], capsys, code=2)


def test_a_project_s_rules_are_those_of_its_file(small: Any) -> None:
    small.change("caption", to={"edit": {"replace": {"circle": "zorp"}, "suffix": ", drawn"}})
    rules = small.load().caption.edit
    assert (rules.replace, rules.suffix) == ({"circle": "zorp"}, ", drawn")


def test_tokens_are_counted_before_there_are_captions_of_the_images_that_came(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "a broken image of a cat.png").write_bytes(b"x")
    assert run(["ingest", "folder", "man", "--path", str(mine)]) == 0
    assert "tokens: none of 3 captions is cut" in said(["show", "man"], capsys)


def test_no_caption_tells_the_terminal_what_to_do(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "a cat\x1b[31m in \u202edisguise\nsecond line"
    (mine / "a man, a man_1.txt").write_text(text)
    assert run(["ingest", "folder", "man", "--path", str(mine)]) == 0
    assert run(["caption", "man"]) == 0
    for tokens in (["show", "man", "--image", "a man, a man_1.png"], ["caption", "edit", "man", "--prefix", "x"]):
        out = said([*tokens, *(["--dry-run"] if "edit" in tokens else [])], capsys)
        assert all(part in out for part in (r"a cat\x1b[31m", r"\u202edisguise\nsecond"))
        assert not {"\x1b", "\u202e"} & set(out)


@pytest.mark.parametrize("command", ["caption", "score"])
def test_a_folder_that_is_missing_or_empty_is_refused_and_nothing_made(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    models = {"caption": ["--model", str(MODELS / "blip")], "score": ["--model", str(MODELS / "clip")]}[command]
    (tmp_path / "empty").mkdir()
    assert "is not a folder" in said([command, "missing", *models], capsys, code=2)
    assert "contains no image" in said([command, "empty", *models], capsys, code=2)
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_plain_folders_are_captioned_and_scored(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / "captions").mkdir()  # the name of a table of collections
    Image.new("RGB", (40, 40), "red").save(mine / "captions" / "1.png")
    out = said(["caption", "mine", "--model", str(MODELS / "blip")], capsys)
    assert "4 in         4 kept, of which captioned already 3" in out
    assert (mine / "captions" / "1.txt").read_text().strip()
    out = said(["score", "mine", "--model", str(MODELS / "clip")], capsys)
    assert "table: dreamloom-mine-scores.csv" in out
    lines = (mine.parent / "dreamloom-mine-scores.csv").read_text().splitlines()
    assert lines[0].startswith('"file_name","aesthetic","similarity","phash"')
    assert len(lines) == 5
    assert "exists, and stays" in said(["score", "mine", "--model", str(MODELS / "clip")], capsys, code=2)
    assert not (mine / ".lock").exists()


def test_a_collection_takes_no_output(collection: Collection, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("caption", "score"):
        assert "leave --output out" in said([command, "man", "--output", "x.csv"], capsys, code=2)
