"""Every image can be followed back, and every dropped key to where and why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.stage import Summary
from dreamloom.curate.assemble import balance
from dreamloom.curate.choose import choose
from dreamloom.curate.config import BalanceConfig, ChooseConfig, ScoreConfig
from dreamloom.curate.manifest import manifest_path, read_manifest
from dreamloom.curate.source import Role, Source
from dreamloom.curate.trace import trace
from dreamloom.scrape.collection import CaptionKind, Collection, Status, Table
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.words import Words

Make = Callable[..., Collection]

URL, HOME = "https://x.org/a.jpg", "/mine/IMG_1.JPG"


@pytest.fixture
def workspace(make_collection: Make, tmp_path: Path) -> Path:
    """Five images of the user's, and of people one that is used, one lost on the web, and one too plain."""
    car = make_collection(
        "car", [{"key": f"aaaa{i}", "text": "my car", "path": HOME if i == 0 else None} for i in range(5)]
    )
    found = {"url": URL, "text": "a man", "text_kind": CaptionKind.ALT, "licence": "CC-BY", "author": "Ann"}
    people = make_collection(
        "people",
        [
            {"key": "bbbb0", **found},
            {"key": "bbbb1", "status": Status.HTTP_404, "detail": "Not Found", "url": URL},
            {"key": "cccc2", "text": "a man"},
        ],
    )
    candidates = [
        {"key": k, "text": "a man", "width": 640, "height": 512} for k in ("bbbb0", "bbbb1", "cccc2", "dddd3")
    ]
    filtered, one = FilterConfig(index=["x"], words=Words(any=["man"])), Summary(rows=4, kept=4)
    people.write(Table.CANDIDATES, "00000", candidates, recipe="r", config=filtered, summary=one)
    scores = [
        {"key": k, "aesthetic": a, "similarity": 0.31, "phash": i, "embedding": [1.0]}
        for i, (k, a) in enumerate((("bbbb0", 6.25), ("cccc2", 3.0)))
    ]
    scored = ScoreConfig(aesthetic_head=Path("/models/v2.pth"))
    models = {"clip": "c", "weights": "w", "head": "h"}
    scored_all = Summary(rows=2, kept=2)
    people.write(Table.SCORES, "00000", scores, recipe="r", config=scored, summary=scored_all, models=models)
    sources = [Source(car, Role.TRAINING), Source(people, Role.GROUND_TRUTH)]
    choose(sources, ChooseConfig(min_aesthetic=5))
    candidates_found = [
        {"caption": text, "kind": kind, "score": -1.0, "similarity": cosine}
        for text, kind, cosine in (("a smiling man", CaptionKind.MODEL, 0.19), ("a man", CaptionKind.ALT, 0.15))
    ]
    edited = {
        "caption": "a man, smiling",
        "unedited": "a smiling man",
        "kind": CaptionKind.MODEL,
        "model": "/me/jo/../blip",
    }
    ranked = {"similarity": 0.19, "clip": "ViT-B-32 openai", "doubtful": True, "candidates": candidates_found}
    written = [{"key": "bbbb0", **edited, **ranked}]
    people.write(Table.CAPTIONS, "00000", written, recipe="r", config=scored, summary=Summary(rows=1, kept=1))
    balance(sources, BalanceConfig(), tmp_path)
    return tmp_path


def said(lines: list[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for what, value in lines:
        joined[what] = f"{joined[what]}; {value}" if what in joined else value
    return joined


def test_an_image_of_the_dataset_is_followed_back(workspace: Path) -> None:
    history = said(trace(workspace / "dataset", "a man, smiling.png"))
    assert history["key"] == "bbbb0"
    assert history["source"] == "people (ground_truth)"
    assert (history["url"], history["licence"], history["author"]) == (URL, "CC-BY", "Ann")
    assert "side ≥ 512: 640 × 512" in history["passed filter"]
    assert "says one of: man" in history["passed filter"]
    assert history["passed scrape"] == "side ≥ 16: 48 × 40"
    assert history["aesthetic"] == "6.250 (v2.pth)"
    assert history["similarity"] == "0.310 (ViT-L-14-quickgelu openai)"
    assert history["choice"] == "kept"
    assert history["passed choose"].startswith("aesthetic ≥ 5: 6.25; no better image")
    assert (history["caption"], history["caption by"]) == ("a man, smiling", "model (/me/blip)")
    assert history["before the edits"] == "a smiling man"
    assert history["caption fits"] == "0.190 (ViT-B-32 openai): doubtful"
    assert history["candidate"] == "0.190 a smiling man (model); 0.150 a man (alt)"
    assert history["in the dataset"] == "dataset/people/a man, smiling.png"
    assert history["multiply"] == "4 times per epoch"
    assert Path(history["image"].removesuffix(" (48 × 40)")).is_relative_to(workspace / "collections/people")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        (".", "a man, smiling.png"),
        (".", "people/a man, smiling.png"),
        ("dataset/people", "a man, smiling.png"),
        (".", "bbbb0"),
        ("collections/people", "bbbb0"),
        ("collections/people", "bbbb0.png"),
    ],
)
def test_an_image_has_many_names(workspace: Path, folder: str, name: str) -> None:
    assert trace(workspace / folder, name) == trace(workspace / "dataset", "a man, smiling.png")


def test_the_users_own_file_is_named(workspace: Path) -> None:
    history = said(trace(workspace / "collections/car", "IMG_1.JPG"))
    assert (history["key"], history["path"], history["licence"]) == ("aaaa0", HOME, "unknown")
    assert "min_aesthetic" not in str(history)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("bbbb1", "scrape: http_404 (Not Found)"),
        ("cccc2", "choose: low_aesthetic (aesthetic 3.000 < 5)"),
    ],
)
def test_a_dropped_key_says_where_and_why(workspace: Path, key: str, reason: str) -> None:
    for folder in (workspace, workspace / "collections/people"):
        assert said(trace(folder, key))["dropped"] == reason
        assert said(trace(folder, key))["in the dataset"].startswith("no: ")


def test_a_candidate_that_was_not_fetched_yet_is_known(workspace: Path) -> None:
    history = said(trace(workspace, "dddd3"))
    assert history["status"] == "not there yet; scrape has not come to it"


def test_every_row_of_the_manifest_can_be_traced(workspace: Path) -> None:
    for row in read_manifest(manifest_path(workspace)).to_pylist():
        by_key = trace(workspace, row["key"])
        if row["file"]:
            assert trace(workspace, row["file"]) == by_key
            assert ("held out", row["file"]) in by_key or ("in the dataset", row["file"]) in by_key
        else:
            assert any(what == "dropped" for what, _ in by_key)


def test_a_name_that_is_not_clear_is_an_error(workspace: Path) -> None:
    with pytest.raises(UserError, match="Several images are called aaaa"):
        trace(workspace, "aaaa")
    with pytest.raises(UserError, match=r"No image .* is called nothing\.png"):
        trace(workspace, "nothing.png")
    with pytest.raises(UserError, match="is called a;"):
        trace(workspace, "a")


@pytest.mark.parametrize(("folder", "sentence"), [("nowhere", "is no folder"), (".", "is no workspace")])
def test_a_folder_that_is_not_ours_is_named(tmp_path: Path, folder: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        trace(tmp_path / folder, "a")


def test_a_workspace_that_moved_is_still_traced(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved: Any = workspace.rename(tmp_path_factory.mktemp("new") / "place")
    assert said(trace(moved, "a man, smiling.png"))["key"] == "bbbb0"
