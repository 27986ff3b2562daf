"""The training folder holds what was chosen, drawn in the ratio asked for, and its manifest knows every key."""

import io
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.base.tables.held_out import read_held_out
from dreamloom.caption.filename import read_name
from dreamloom.caption.sidecar import read_caption
from dreamloom.curate.assemble import balance, is_current
from dreamloom.curate.choose import choose
from dreamloom.curate.config import BalanceConfig, ChooseConfig, NearDuplicates
from dreamloom.curate.hand_changes import find_hand_changes
from dreamloom.curate.history import read_history
from dreamloom.curate.manifest import MANIFEST, content_digest, manifest_path, read_manifest, read_sources
from dreamloom.curate.source import Role, Source
from dreamloom.curate.split import split_images
from dreamloom.scrape.collection import CaptionKind, Choice, Collection, Status, Table, key_of
from dreamloom.scrape.collection.decisions import Decision, What
from tests.curate.conftest import noise
from tests.curate.test_choose import add_scores
from tests.powercut import PowerCut

Make = Callable[..., Collection]
TRAINING, TRUTH = Role.TRAINING, Role.GROUND_TRUTH
HOUSE = Path(__file__).parents[2]


class Captions(StageConfig):
    model: str = "blip"


def add_captions(collection: Collection, lost: int = 0) -> Collection:
    """Captions as the caption stage would write them; the first `lost` images could not be decoded any more."""
    for part in collection.parts(Table.CHOICES):
        chosen = [r["key"] for r in collection.read(Table.CHOICES, part).to_pylist() if r["choice"] == Choice.KEPT]
        rows = [
            {"key": k, "caption": f"model says {k}", "kind": CaptionKind.MODEL, "model": "blip"} for k in chosen[lost:]
        ]
        summary = Summary(rows=len(chosen), kept=len(rows), dropped={"truncated": lost})
        collection.write(Table.CAPTIONS, part, rows, recipe=f"{rows}", config=Captions(), summary=summary)
    return collection


def records(count: int, **values: Any) -> list[dict[str, Any]]:
    return [{"text": f"an image, the {number}th", **values} for number in range(count)]


@pytest.fixture
def project(make_collection: Make) -> list[Source]:
    """Ten of training; people and faces, 40 and 20, in shares of 3 to 1; some of people dropped."""
    car = make_collection("car", records(10, path="/mine/car.jpg"))
    people = make_collection("people", [*records(40, url="https://x.org/a"), {"status": Status.HTTP_404}], part_rows=16)
    faces = make_collection("faces", records(20, text="a face", licence="CC0", author="Ann", sha256=None))
    sources = [Source(people, TRUTH, share=3), Source(car, TRAINING, multiply=2), Source(faces, TRUTH)]
    choose(sources, ChooseConfig())
    return sources


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def shown_per_epoch(folder: Path) -> float:
    images = [p for p in folder.iterdir() if p.suffix == ".png"]
    return float(round(len(images) * Fraction((folder / "multiply.txt").read_text().strip()), 9))


def test_an_epoch_of_the_folder_has_the_ratio_and_the_shares(project: list[Source], tmp_path: Path) -> None:
    work = tmp_path / "work"
    summary = balance(project, BalanceConfig(ratio=1.5, held_out=0.1), work)
    assert {p.name: shown_per_epoch(p) for p in (work / "dataset").iterdir()} == {
        "car": 18,
        "people": 20.25,
        "faces": 6.75,
    }
    assert (summary.rows, summary.kept, summary.dropped) == (71, 70, {"http_404": 1})
    held = {str(p.relative_to(work / "heldout")): len(list(p.iterdir())) for p in (work / "heldout").glob("*/*")}
    assert held == {"training/car": 1, "ground_truth/people": 4, "ground_truth/faces": 2}


def test_every_file_is_its_image_under_its_caption(project: list[Source], tmp_path: Path) -> None:
    work = tmp_path / "work"
    balance(project, BalanceConfig(), work)
    rows = read_manifest(manifest_path(work)).to_pylist()
    of_name = {source.name: source.collection for source in project}
    seen = set()
    for row in rows:
        if row["split"] == "dropped":
            assert row["file"] is None
            continue
        image = work / row["file"]
        stored = of_name[row["source"]].find(row["key"])[Table.RECORDS]["image"]
        assert image.stat().st_ino == (of_name[row["source"]].root / stored).stat().st_ino
        assert read_caption(image).text == row["caption"]
        assert (row["multiply"] is None) == (row["split"] == "heldout")
        seen.add(str(image))
    on_disk = {str(p) for p in work.rglob("*.png")}
    assert seen == on_disk


def test_the_manifest_knows_every_key(project: list[Source], tmp_path: Path) -> None:
    work = tmp_path / "work"
    balance(project, BalanceConfig(), work)
    manifest = read_manifest(manifest_path(work))
    assert manifest.schema == MANIFEST
    people, car, faces = (source.collection.read(Table.RECORDS)["key"].to_pylist() for source in project)
    keys = car + people + faces
    assert manifest["key"].to_pylist() == keys
    by_key = {row["key"]: row for row in manifest.to_pylist()}
    face, gone, mine = by_key[faces[-1]], by_key[people[-1]], by_key[car[0]]
    assert (face["licence"], face["author"], face["role"], face["caption"]) == ("CC0", "Ann", "ground_truth", "a face")
    assert (gone["split"], gone["stage"], gone["reason"]) == ("dropped", "records", "http_404")
    assert (mine["path"], mine["caption_kind"], mine["width"], mine["height"]) == ("/mine/car.jpg", "human", 48, 40)
    assert [s["name"] for s in read_sources(manifest_path(work))] == ["car", "people", "faces"]
    assert (work / read_sources(manifest_path(work))[0]["root"]).resolve() == project[1].collection.root.resolve()


def test_a_drop_names_its_stage_and_reason(make_collection: Make, tmp_path: Path) -> None:
    car = make_collection("car", records(4))
    same = car.read(Table.RECORDS)["sha256"][0].as_py()
    people = make_collection("people", [*records(3), *records(1, sha256=same), *records(1, licence="by-nc")])
    sources = [Source(car, TRAINING), Source(people, TRUTH)]
    choose(sources, ChooseConfig(exclude_licences=["by-nc"]))
    add_captions(people, lost=1)
    balance(sources, BalanceConfig(held_out=0), tmp_path / "work")
    rows = read_manifest(manifest_path(tmp_path / "work")).to_pylist()[4:]
    first = car.read(Table.RECORDS)["key"][0].as_py()
    why = "which is of training"
    assert [(r["split"], r["stage"], r["reason"], r["detail"]) for r in rows] == [
        ("dropped", "captions", "unreadable", None),
        ("train", None, None, None),
        ("train", None, None, None),
        ("dropped", "choices", "duplicate", f"repeats car/{first}, {why}"),
        ("dropped", "choices", "licence", "by-nc"),
    ]
    assert (rows[1]["caption"], rows[1]["caption_model"]) == (f"model says {rows[1]['key']}", "blip")


def test_a_caption_that_no_name_holds_is_in_a_sidecar(make_collection: Make, tmp_path: Path) -> None:
    texts = ["a cat/dog: 50% off?", "x " * 200, "日本の猫 " * 40, "", "plain", "plain", "Plain", "a.b", "two\nlines"]
    car = make_collection("car", [{"text": text} for text in texts])
    choose([Source(car, TRAINING)], ChooseConfig())
    balance([Source(car, TRAINING)], BalanceConfig(held_out=0), tmp_path / "work")
    rows = read_manifest(manifest_path(tmp_path / "work")).to_pylist()
    for row, text in zip(rows, texts, strict=True):
        image = tmp_path / "work" / row["file"]
        assert read_caption(image).text == row["caption"] == text
        assert len(image.name.encode()) <= 255
        assert image.with_suffix(".txt").exists() == (read_name(image.name) != text)


def test_a_share_of_less_than_one_image_per_epoch_adds_up_over_epochs(make_collection: Make, tmp_path: Path) -> None:
    collections = [make_collection(name, records(3)) for name in ("car", "people", "faces")]
    roles = [(TRAINING, 1), (TRUTH, 100), (TRUTH, 1)]
    sources = [Source(c, role, share=share) for c, (role, share) in zip(collections, roles, strict=True)]
    choose(sources, ChooseConfig())
    balance(sources, BalanceConfig(held_out=0), tmp_path / "work")
    assert shown_per_epoch(tmp_path / "work" / "dataset" / "faces") == pytest.approx(3 / 101)


def test_a_share_of_nothing_is_left_out_and_said(make_collection: Make, tmp_path: Path) -> None:
    """multiply.txt never says 0, which EveryDream takes for 1."""
    car, people = make_collection("car", records(3)), make_collection("people", records(3))
    faces = make_collection("faces", records(3))
    sources = [Source(car, TRAINING), Source(people, TRUTH), Source(faces, TRUTH, share=1e-13)]
    choose(sources, ChooseConfig())
    summary = balance(sources, BalanceConfig(held_out=0), tmp_path / "work")
    assert sorted(p.name for p in (tmp_path / "work" / "dataset").iterdir()) == ["car", "people"]
    assert summary.dropped == {"not_drawn": 3}
    rows = read_manifest(manifest_path(tmp_path / "work")).to_pylist()
    assert [(r["stage"], r["reason"], r["multiply"]) for r in rows[6:]] == [("balance", "not_drawn", None)] * 3


def test_training_alone_is_a_dataset(make_collection: Make, tmp_path: Path) -> None:
    car = make_collection("car", records(5))
    choose([Source(car, TRAINING)], ChooseConfig())
    balance([Source(car, TRAINING)], BalanceConfig(), tmp_path / "work")
    assert shown_per_epoch(tmp_path / "work" / "dataset" / "car") == 4
    assert sorted(p.name for p in (tmp_path / "work" / "heldout").iterdir()) == ["concepts.json", "training"]


def test_ground_truth_alone_is_an_error_before_anything_is_written(make_collection: Make, tmp_path: Path) -> None:
    people = make_collection("people", records(5))
    choose([Source(people, TRUTH)], ChooseConfig())
    with pytest.raises(UserError, match="no training image"):
        balance([Source(people, TRUTH)], BalanceConfig(), tmp_path / "work")
    assert not manifest_path(tmp_path / "work").exists()
    assert not (tmp_path / "work" / "dataset").exists()


def test_few_images_for_many_draws_are_warned_of(make_collection: Make, tmp_path: Path, caplog: Any) -> None:
    car, people = make_collection("car", records(8)), make_collection("people", records(2))
    sources = [Source(car, TRAINING), Source(people, TRUTH)]
    choose(sources, ChooseConfig())
    balance(sources, BalanceConfig(held_out=0), tmp_path / "work")
    assert shown_per_epoch(tmp_path / "work" / "dataset" / "people") == 8
    assert "people has too few images (2) for 8 draws per epoch: each is shown 4 times, a training" in caplog.text


@pytest.mark.parametrize("table", [Table.CHOICES, Table.CAPTIONS, Table.SCORES])
def test_tables_older_than_the_records_are_refused(make_collection: Make, tmp_path: Path, table: Table) -> None:
    car = make_collection("car", records(4))
    sources = [Source(car, TRAINING)]
    choose(sources, ChooseConfig())
    add_captions(car)
    if table is Table.SCORES:
        summary = Summary(rows=1, kept=1)
        car.write(table, "00000", [{"key": "old"}], recipe="r", config=Captions(), summary=summary)
    else:
        make_collection("car", records(5))
        if table is Table.CAPTIONS:
            choose(sources, ChooseConfig())
    with pytest.raises(UserError, match=f"{table} of car are missing or older"):
        balance(sources, BalanceConfig(), tmp_path / "work")


def test_without_choices_balance_says_what_to_run(make_collection: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run choose"):
        balance([Source(make_collection("car", records(4)), TRAINING)], BalanceConfig(), tmp_path / "work")


def test_it_is_made_once_and_made_anew_only_when_something_changed(project: list[Source], tmp_path: Path) -> None:
    work, config = tmp_path / "work", BalanceConfig()
    assert not is_current(project, config, work)
    assert balance(project, config, work).parts_done == 1
    before = {p: p.stat().st_ino for p in work.rglob("*")}
    again = balance(project, config, work)
    assert (again.parts_done, again.parts_before, again.rows) == (0, 1, 71)
    assert {p: p.stat().st_ino for p in work.rglob("*")} == before
    assert is_current(project, config, work)
    other = [*project[:2], replace(project[2], share=2)]
    for changed in ((project, BalanceConfig(ratio=2)), (other, config)):
        assert not is_current(*changed, work)
        made = content_digest(manifest_path(work))
        assert balance(*changed, work).parts_done == 1
        assert content_digest(manifest_path(work)) != made


def test_of_a_large_folder_only_what_changes_is_written_and_it_is_as_if_made_anew(
    make_collection: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamloom.base.files.tree_state.SETTLED_NS", -(10**12))  # what was just written may be trusted
    image = io.BytesIO()
    noise(0).save(image, "PNG")
    own = [{"content": image.getvalue(), "sha256": f"{number:064d}"} for number in range(1100)]
    rows = [{"text": f"an image, the {number}th", **each} for number, each in enumerate(own)]
    long, sources = "a caption that no name holds: " + "word " * 60, [Source(make_collection("car", rows), TRAINING)]
    for row, text in ((7, long), (8, long), (20, "alike"), (21, "alike"), (22, "alike")):
        rows[row]["text"] = text
    work, config = tmp_path / "work", BalanceConfig(held_out=0.01)

    def make(workspace: Path, time: str, decided: dict[int, tuple[What, str]]) -> dict[str, int]:
        collection = make_collection("car", rows)
        said = [Decision(key_of("test", "car", str(row)), time, *word) for row, word in decided.items()]
        collection.add_decisions(said)
        choose(sources, ChooseConfig())
        balance(sources, config, workspace)
        return {p.name: p.stat().st_ino for p in (workspace / "dataset").rglob("*")}

    before = make(work, "2020", {3: (What.MULTIPLY, "2"), 4: (What.CROP, "0,0,20,20"), 5: (What.FLIP, "no")})
    rows[0]["text"], rows[7]["text"], rows[9]["text"] = "another caption", "short", f"{long}, too"
    rows[20] = {"status": Status.HTTP_404}
    rows.append({"text": "a new image", **own[0], "sha256": "f" * 64})
    assert find_hand_changes(work) == []
    after = make(work, "2021", {3: (What.MULTIPLY, "1"), 6: (What.CROP, "0,0,20,20")})
    with monkeypatch.context() as patched:
        patched.setattr("dreamloom.curate.hand_changes.look_at", lambda _: pytest.fail("compared with the manifest"))
        assert find_hand_changes(work) == []
    assert after["car"] == before["car"] and files_of(work / "dataset") != {}
    make(tmp_path / "anew", "2022", {})
    for folder in ("dataset", "heldout"):
        assert files_of(work / folder) == files_of(tmp_path / "anew" / folder)
    assert read_manifest(manifest_path(work)).equals(read_manifest(manifest_path(tmp_path / "anew")))
    (work / "dataset" / "car" / "multiply.txt").write_text("7")
    assert [change.how for change in find_hand_changes(work)] == ["set otherwise"]


def test_what_was_there_before_is_gone_and_the_collections_are_not(project: list[Source], tmp_path: Path) -> None:
    work = tmp_path / "work"
    balance(project, BalanceConfig(), work)
    images = {p for s in project for p in s.collection.root.rglob("*.png")}
    balance(project[:2], BalanceConfig(ratio=0.5), work)
    assert sorted(p.name for p in (work / "dataset").iterdir()) == ["car", "people"]
    assert not (work / "heldout" / "ground_truth" / "faces").exists()
    assert all(p.exists() for p in images)
    assert not [p for p in work.iterdir() if p.name.startswith(".tmp-")]


_KILLER = """
import os, signal, sys
_left = {at}
def _count(event, args):
    global _left
    if event == {event!r}:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(_count)
"""


def kill_balance(project: list[Source], work: Path, event: str, at: int) -> None:
    """Runs balance by the default config in a process that dies before its nth event of a kind."""
    roots = [(str(s.collection.root), str(s.role), s.share, s.multiply) for s in project]
    script = f"""
from pathlib import Path
from dreamloom.curate.assemble import balance
from dreamloom.curate.config import BalanceConfig
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Collection
sources = [Source(Collection(Path(r)), Role(role), share, multiply) for r, role, share, multiply in {roots!r}]
balance(sources, BalanceConfig(), Path({str(work)!r}))
"""
    code = _KILLER.format(at=at, event=event) + script
    done = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, timeout=100, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "at", "there"),
    [
        ("os.link", 30, set()),
        ("os.rename", 1, set()),
        ("os.rename", 2, set()),
        ("os.rename", 3, {"dataset"}),
        ("os.rename", 4, {"heldout", "dataset"}),
    ],
)
def test_a_run_killed_anywhere_is_finished_by_the_next(
    project: list[Source], tmp_path: Path, event: str, at: int, there: set[str]
) -> None:
    """Before a link, and before each of the renames that put concepts.json, dataset, heldout and manifest in place."""
    balance(project, BalanceConfig(), tmp_path / "undisturbed")
    work = tmp_path / "work"
    kill_balance(project, work, event, at)
    assert {p.name for p in work.iterdir() if not p.name.startswith(".")} == there
    assert not is_current(project, BalanceConfig(), work)
    balance(project, BalanceConfig(), work)
    assert read_manifest(manifest_path(work)).equals(read_manifest(manifest_path(tmp_path / "undisturbed")))
    for folder in ("dataset", "heldout"):
        assert files_of(work / folder) == files_of(tmp_path / "undisturbed" / folder)
    assert not [p for p in work.iterdir() if p.name.startswith(".tmp-")]


@pytest.mark.slow
@pytest.mark.parametrize(("event", "at"), [("os.link", 30), ("os.rename", 3), ("os.rename", 5), ("os.rename", 6)])
def test_killed_over_another_configs_folder_it_leaves_none_that_looks_whole(
    project: list[Source], tmp_path: Path, event: str, at: int
) -> None:
    """Before a link, and where one of the folders is new, where both are, and before the manifest is."""
    work, before = tmp_path / "work", BalanceConfig(ratio=2, held_out=0.2)
    balance(project, before, work)
    assert is_current(project, before, work)
    kill_balance(project, work, event, at)
    assert not manifest_path(work).exists()
    assert not is_current(project, before, work) and not is_current(project, BalanceConfig(), work)
    balance(project, before, work)
    balance(project, before, tmp_path / "undisturbed")
    for folder in ("dataset", "heldout"):
        assert files_of(work / folder) == files_of(tmp_path / "undisturbed" / folder)


@pytest.mark.slow
@pytest.mark.parametrize("event", ["os.remove", "os.link"])
def test_killed_while_a_large_folder_is_changed_in_its_place_it_is_finished_by_the_next(
    make_collection: Make, tmp_path: Path, event: str
) -> None:
    """Before one of the old images goes, and before one of the new ones comes."""
    image = io.BytesIO()
    noise(0).save(image, "PNG")
    rows = [
        {"text": f"an image, the {number}th", "content": image.getvalue(), "sha256": f"{number:064d}"}
        for number in range(1100)
    ]
    sources, work, config = [Source(make_collection("car", rows), TRAINING)], tmp_path / "work", BalanceConfig()
    choose(sources, ChooseConfig())
    balance(sources, config, work)
    before, inode = files_of(work / "dataset"), (work / "dataset").stat().st_ino
    for row in rows[:50]:
        row["text"] = f"{row['text']}, otherwise"
    make_collection("car", rows)
    choose(sources, ChooseConfig())
    held_out = sum(path.suffix == ".png" for path in (work / "heldout").rglob("*"))
    kill_balance(sources, work, event, {"os.remove": 10, "os.link": held_out + 3}[event])
    left = files_of(work / "dataset")
    assert (work / "dataset").stat().st_ino == inode and len(left) < len(before) and not manifest_path(work).exists()
    assert not is_current(sources, config, work)
    balance(sources, config, work)
    balance(sources, config, tmp_path / "anew")
    for folder in ("dataset", "heldout"):
        assert files_of(work / folder) == files_of(tmp_path / "anew" / folder)
    assert read_manifest(manifest_path(work)).equals(read_manifest(manifest_path(tmp_path / "anew")))
    assert not [p for p in work.iterdir() if p.name.startswith(".tmp-")]


def test_a_power_cut_leaves_no_manifest_beside_folders_of_another_config(
    make_collection: Make, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    car, people = make_collection("car", records(3)), make_collection("people", records(6))
    sources = [Source(car, TRAINING), Source(people, TRUTH)]
    choose(sources, ChooseConfig())
    work, power = tmp_path / "work", PowerCut(tmp_path, monkeypatch)
    old, new = BalanceConfig(ratio=2, held_out=0.3), BalanceConfig(ratio=1, held_out=0.2)
    balance(sources, old, work)
    trees = {"old": [files_of(work / folder) for folder in ("dataset", "heldout")]}
    with power.watching():
        balance(sources, new, work)
    trees["new"] = [files_of(work / folder) for folder in ("dataset", "heldout")]
    for disk, ended in power.left_behind(tmp_path_factory.mktemp("found") / "disk"):
        found = [name for name, config in (("old", old), ("new", new)) if is_current(sources, config, disk / "work")]
        assert all([files_of(disk / "work" / f) for f in ("dataset", "heldout")] == trees[name] for name in found)
        assert not ended or found == ["new"]


def test_an_image_that_is_gone_is_named(project: list[Source], tmp_path: Path) -> None:
    next(project[1].collection.root.rglob("*.png")).unlink()
    with pytest.raises(UserError, match=r"\.png is gone"):
        balance(project, BalanceConfig(), tmp_path / "work")
    assert not (tmp_path / "work" / "dataset").exists()


def test_two_runs_in_one_workspace_do_not_mix(project: list[Source], tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    hold = (
        "import sys, fcntl; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(work / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="in use by another run"):
            balance(project, BalanceConfig(), work)
        holder.communicate("\n")


def test_asking_whether_it_is_current_imports_no_models(project: list[Source], tmp_path: Path) -> None:
    script = """
import json, sys
import dreamloom.curate.assemble, dreamloom.curate.choose, dreamloom.curate.score
print(json.dumps([m for m in ("torch", "open_clip", "imagehash", "scipy", "transformers") if m in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HOUSE, check=True)
    assert json.loads(done.stdout) == []


def test_a_manifest_that_is_not_there_or_torn_is_named(tmp_path: Path) -> None:
    for read in (read_manifest, content_digest):
        with pytest.raises(UserError, match="run balance"):
            read(tmp_path / "dataset.parquet")
    (tmp_path / "dataset.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="can't be read"):
        read_manifest(tmp_path / "dataset.parquet")
    assert isinstance(MANIFEST, pa.Schema)


def split_of(work: Path) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in read_manifest(manifest_path(work)).to_pylist():
        rows.setdefault(row["split"], []).append(row)
    return rows


def test_a_witness_is_never_trained_on(make_collection: Make, tmp_path: Path) -> None:
    car, people = make_collection("car", records(6)), make_collection("people", records(20))
    same = car.read(Table.RECORDS)["sha256"][0].as_py()
    scenes = make_collection("scenes", [*records(9), {"text": "the car again", "sha256": same}])
    sources = [Source(scenes, Role.WITNESS), Source(people, TRUTH), Source(car, TRAINING)]
    choose(sources, ChooseConfig())
    work = tmp_path / "work"
    balance(sources, BalanceConfig(held_out=0.1, held_out_max_witness=7), work)
    rows = split_of(work)
    assert {row["source"] for row in rows["train"]} == {"car", "people"}
    witnesses = [row for row in rows["heldout"] if row["source"] == "scenes"]
    assert len(witnesses) == 7 and all(row["file"].startswith("heldout/witness/scenes/") for row in witnesses)
    dropped = [(row["reason"], row["source"]) for row in rows["dropped"]]
    assert sorted(dropped) == [("duplicate", "scenes"), *[("not_rehearsed", "scenes")] * 2]


def test_a_part_of_the_concepts_is_not_rehearsed_where_there_is_plenty(make_collection: Make, tmp_path: Path) -> None:
    image = noise(0)
    kinds = ["a kite"] * 30 + ["a boat"] * 40 + ["a tree"] * 930
    car = make_collection("car", records(4, text="a car beside a boat"))
    world = make_collection("world", [{"text": text, "content": image, "sha256": None} for text in kinds])
    sources = [Source(car, TRAINING), Source(world, TRUTH)]
    choose(sources, ChooseConfig(near_duplicates=NearDuplicates.OFF))
    rows = pa.concat_tables([read_history(source) for source in sources])
    ordered, alone = sources, [None] * len(rows)
    placed = split_images(rows, ordered, BalanceConfig(held_out_max_witness=20), alone)
    shown = {
        split: {c for s, c in zip(placed.split, rows["caption"].to_pylist(), strict=True) if s == split}
        for split in ("train", "heldout", "dropped")
    }
    assert shown["train"] == {"a car beside a boat", "a boat", "a tree"}, "what training captions name is rehearsed"
    assert shown["dropped"] == {"a kite"}
    assert Counter(placed.kinds.values())[Role.WITNESS] == 20
    for off in ({"unrehearsed": 0}, {"held_out": 0}, {"held_out_max_witness": 0}):
        everything = split_images(rows, ordered, BalanceConfig.model_validate(off), alone)
        assert Role.WITNESS not in everything.kinds.values() and "dropped" not in everything.split


@pytest.mark.parametrize("is_scored", [False, True])
def test_no_copy_of_a_held_out_image_is_trained_on(make_collection: Make, tmp_path: Path, is_scored: bool) -> None:
    """Each image twice, in other bytes; choose has not seen it, as nothing was scored, or it was told not to look."""
    images = [noise(number, 64, 64) for number in range(12)]
    copies = [image.resize((48, 48)) for image in images]
    car = make_collection("car", [{"text": f"n {n % 12}", "content": i} for n, i in enumerate([*images, *copies])])
    if is_scored:
        add_scores(car, [])
    kind = NearDuplicates.OFF if is_scored else NearDuplicates.STRICT
    choose([Source(car, TRAINING)], ChooseConfig(near_duplicates=kind))
    work = tmp_path / "work"
    balance([Source(car, TRAINING)], BalanceConfig(held_out=0.3), work)
    rows = split_of(work)
    held_out = [row["caption"] for row in rows["heldout"]]
    assert len(held_out) in (6, 7) and set(Counter(held_out).values()) == {2}
    assert not set(held_out) & {row["caption"] for row in rows["train"]}
    described = read_held_out(work / "heldout")
    assert described is not None and len({image.copies for image in described.values()}) == len(held_out) / 2


def test_evaluate_is_told_what_held_out_images_show(make_collection: Make, tmp_path: Path) -> None:
    car = make_collection("car", records(4))
    world = make_collection("world", records(40, text="a dog in a park", labels=["frisbee"]) + records(60))
    choose([Source(car, TRAINING), Source(world, TRUTH)], ChooseConfig())
    work = tmp_path / "work"
    balance([Source(car, TRAINING), Source(world, TRUTH)], BalanceConfig(concepts=["3th"]), work)
    described = read_held_out(work / "heldout")
    assert described is not None
    by_file = {row["file"].removeprefix("heldout/"): row for row in split_of(work)["heldout"]}
    assert described.keys() == by_file.keys()
    for name, image in described.items():
        assert list(image.concepts) == by_file[name]["concepts"]
        assert ({"dog", "park", "frisbee"} <= set(image.concepts)) == ("dog" in name)


def test_captions_of_one_download_are_held_out_together(make_collection: Make, tmp_path: Path) -> None:
    """Choose keeps all of them; none may be trained on while another is held out."""
    downloads = [noise(number // 2) for number in range(40)]
    records = [{"text": f"n {n}", "url": f"http://a/{n // 2}", "content": image} for n, image in enumerate(downloads)]
    vectors = np.eye(20)
    world = add_scores(
        make_collection("world", records),
        [{"phash": n // 2 * 0x1F3F5F7F1, "embedding": vectors[n // 2].tolist()} for n in range(40)],
    )
    sources = [Source(world, TRAINING)]
    assert choose(sources, ChooseConfig()).kept == 40
    balance(sources, BalanceConfig(held_out=0.3), tmp_path)
    splits: dict[str, set[str]] = {}
    for row in read_manifest(manifest_path(tmp_path)).to_pylist():
        splits.setdefault(row["sha256"], set()).add(row["split"])
    assert sorted(map(sorted, splits.values())) == [["heldout"]] * 6 + [["train"]] * 14
