"""A collection that stages fill at an address has the tables of one in a folder, whoever dies and whatever fails."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.caption.config import CaptionConfig, EditConfig
from dreamloom.caption.edit_collection import edit_captions
from dreamloom.caption.sidecar import read_caption
from dreamloom.caption.stage import caption
from dreamloom.curate.choose import choose
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.source import Role, Source
from dreamloom.flows.commands import cli
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.shards import copy_between, find_damage_at, pull_collection
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder
from tests.conftest import HOUSE
from tests.s3 import S3

pytestmark = pytest.mark.usefixtures("own_cache")

ADDRESS = "s3://bucket/work/people"
MANIFEST = "work/people/collection.json"


def made_here(tmp_path: Path, images: FolderConfig) -> Collection:
    made = Collection(tmp_path / "here" / "people")
    ingest_folder(made, images, read_caption)
    return made


def require_equal(address: str, wanted: Collection, folder: Path) -> None:
    """Checks that the collection at an address is whole, has the same tables, and the same images."""
    found = Collection(address)
    for table in Table:
        assert found.stamps(table) == wanted.stamps(table)
    assert not list(find_damage_at(address))
    pull_collection(address, folder)
    for file in (wanted.root / "images").rglob("*.*"):
        assert (folder / file.relative_to(wanted.root)).read_bytes() == file.read_bytes()


def left_over(s3: type[S3]) -> set[str]:
    """Returns the objects that the collection does not name."""
    files = json.loads(s3.objects[MANIFEST])["files"]
    return s3.objects.keys() - {MANIFEST} - {f"work/people/{told.get('object', name)}" for name, told in files.items()}


@pytest.mark.parametrize("address", [ADDRESS, "memory://work/people", "file://{}"])
def test_stages_fill_a_collection_at_an_address(
    address: str, tmp_path: Path, s3: type[S3], images: FolderConfig
) -> None:
    here, there = made_here(tmp_path, images), Collection(address.format(tmp_path / "store" / "people"))
    assert there.address is not None and there.name == "people"
    ingest_folder(there, images, read_caption)
    config = CaptionConfig(keep_kinds=["human", "alt", "template", "none"])
    for collection in (here, there):
        caption(collection, config)
        edit_captions(collection, EditConfig(prefix="photo of "))
    require_equal(there.address, here, tmp_path / "back")
    assert len(there.read(Table.CAPTIONS)) == 5 and there.samples() != []
    assert not list((there.root / "images").rglob("*.*"))  # they are in shards
    assert address.startswith("file") == (tmp_path / "store" / "people" / "collection.json").exists()
    s3.put = []
    assert ingest_folder(Collection(there.address), images, read_caption).parts_done == 0
    assert not [name for name in s3.put if name.endswith((".tar", ".parquet"))]


def test_what_is_made_again_takes_the_place_of_what_was_there(
    tmp_path: Path, s3: type[S3], images: FolderConfig
) -> None:
    there = Collection(ADDRESS)
    ingest_folder(there, images, read_caption)
    (tmp_path / "images" / "a red thing_(0).txt").write_text("a blue thing")
    s3.put = []
    ingest_folder(there, images, read_caption)
    assert not [name for name in s3.put if name.endswith(".tar")], "the same images are not sent again"
    assert len([name for name in s3.put if name.startswith("work/people/records/")]) == 1
    for number in range(3, 5):
        (tmp_path / "images" / f"a red thing_({number}).png").unlink()
    ingest_folder(there, images, read_caption)
    require_equal(ADDRESS, made_here(tmp_path, images), tmp_path / "back")
    assert there.parts(Table.RECORDS) == ["00000", "00001"] and left_over(s3) == set()


def test_decisions_are_taken_at_an_address_and_heeded_by_the_stages_there(
    tmp_path: Path, s3: type[S3], images: FolderConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = made_here(tmp_path, images), Collection(ADDRESS)
    ingest_folder(there, images, read_caption)
    for collection in (here, there):
        choose([Source(collection, Role.TRAINING)], ChooseConfig())
        for line in (["drop", "a red thing_(1)"], ["recaption", "a red thing_(2)", "--caption", "mine"], ["undo"]):
            assert cli.run([line[0], collection.where, *line[1:]]) == 0
        assert cli.run(["drop", collection.where, "--where", "path like '%(3)%'", "--reason", "dull"]) == 0
        assert cli.run(["keep", collection.where, "a red thing_(1)"]) == 0
        assert choose([Source(collection, Role.TRAINING)], ChooseConfig()).dropped == {"decided": 1}
        capsys.readouterr()
        assert cli.run(["decisions", "list", collection.where, "--json"]) == 0
    taken = [[word._replace(time="") for word in collection.decisions().rows] for collection in (here, there)]
    assert taken[0] == taken[1] and len(taken[0]) == 5
    assert [row["what"] for row in json.loads(capsys.readouterr().out)] == ["drop", "keep"]
    require_equal(ADDRESS, here, tmp_path / "back")
    assert len(Collection(tmp_path / "back").decisions().rows) == 5


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_whole_parts_and_the_next_run_goes_on(
    tmp_path: Path, s3: type[S3], images: FolderConfig
) -> None:
    moments: list[dict[str, bytes]] = []
    s3.before_put = staticmethod(lambda _: moments.append(dict(s3.objects)))  # type: ignore[assignment]
    ingest_folder(Collection(ADDRESS), images, read_caption)
    s3.before_put = staticmethod(lambda _: None)  # type: ignore[assignment]
    here, seen = made_here(tmp_path, images), set[int]()
    assert len(moments) > 15
    for number, objects in enumerate(moments):
        s3.objects.clear()
        s3.objects.update(objects)
        shutil.rmtree(cache_folder() / "stores", ignore_errors=True)
        workers = json.loads(objects.get(MANIFEST, b"{}")).get("workers", {})
        for token in workers:  # whose lock nobody holds any more
            (cache_folder() / "workers" / token).touch()
        left = Collection(ADDRESS)
        parts = left.parts(Table.RECORDS)
        assert left.stamps(Table.RECORDS) == here.stamps(Table.RECORDS)[: len(parts)]
        if parts:
            pull_collection(ADDRESS, tmp_path / f"pulled-{number}")
        if workers and len(parts) not in seen:  # the rest of each part at one moment, as it takes time
            seen.add(len(parts))
            ingest_folder(left, images, read_caption)
            require_equal(ADDRESS, here, tmp_path / f"back-{number}")
            assert json.loads(s3.objects[MANIFEST]).keys() == {"schema", "name", "files"}
    assert seen == {0, 1, 2, 3}


def trouble(s3: type[S3], begin: Callable[[], object]) -> None:
    """Begins a trouble when the second part's records are put."""

    def before_put(name: str) -> None:
        if name.startswith("work/people/records/00001"):
            s3.before_put = staticmethod(lambda _: None)  # type: ignore[assignment]
            begin()

    s3.before_put = staticmethod(before_put)  # type: ignore[assignment]


@pytest.mark.parametrize("what", ["the bucket is full", "the credential is lost"])
def test_a_store_that_refuses_is_told_in_a_sentence_and_no_part_is_lost(
    what: str, tmp_path: Path, s3: type[S3], images: FolderConfig
) -> None:
    def begin() -> None:
        if what == "the bucket is full":
            s3.room = 1
        else:
            s3.away.append(403)

    trouble(s3, begin)
    with pytest.raises(UserError, match=r"s3://bucket/work/people can't be written to \(.*(full|expired)"):
        ingest_folder(Collection(ADDRESS), images, read_caption)
    s3.room = 1000
    s3.away.clear()
    assert Collection(ADDRESS).parts(Table.RECORDS) == ["00000"]
    ingest_folder(Collection(ADDRESS), images, read_caption)
    require_equal(ADDRESS, made_here(tmp_path, images), tmp_path / "back")


def test_a_server_that_is_overloaded_and_dies_and_comes_back_is_waited_for(
    tmp_path: Path, s3: type[S3], images: FolderConfig
) -> None:
    def begin() -> None:
        s3.away += [503, 0, 503]
        s3.late.append(0)

    trouble(s3, begin)
    ingest_folder(Collection(ADDRESS), images, read_caption)
    require_equal(ADDRESS, made_here(tmp_path, images), tmp_path / "back")


def test_a_server_that_does_not_heed_conditions_is_refused(s3: type[S3], images: FolderConfig) -> None:
    s3.heeds = False
    with pytest.raises(UserError, match="writes where a condition forbids it"):
        ingest_folder(Collection(ADDRESS), images, read_caption)
    assert Collection(ADDRESS).parts(Table.RECORDS) == []


def test_a_collection_is_copied_between_stores(tmp_path: Path, s3: type[S3], images: FolderConfig) -> None:
    ingest_folder(Collection(ADDRESS), images, read_caption)
    s3.room = len(s3.objects) + 3
    with pytest.raises(UserError, match=r"can't be written to .*bucket is full"):
        copy_between(ADDRESS, "s3://bucket/copy")
    assert "copy/collection.json" not in s3.objects
    s3.room, s3.put = 1000, []
    copy_between(ADDRESS, "s3://bucket/copy")
    assert len(s3.put) == len(json.loads(s3.objects[MANIFEST])["files"]) - 3 + 1
    require_equal("s3://bucket/copy", made_here(tmp_path, images), tmp_path / "back")
    with pytest.raises(UserError, match="holds a collection, and stays as it is"):
        copy_between(ADDRESS, "s3://bucket/copy")


@pytest.mark.slow
def test_processes_share_the_parts_and_take_over_those_of_a_killed_one(
    tmp_path: Path, s3: type[S3], images: FolderConfig
) -> None:
    path, rows = str(tmp_path / "images"), "1"
    command = ["ingest", "folder", ADDRESS, "--path", path, "--part-rows", rows]

    def start() -> "subprocess.Popen[str]":
        line = [sys.executable, "-m", "dreamloom.flows.commands.cli", *command]
        return subprocess.Popen(line, cwd=HOUSE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    killed: list[subprocess.Popen[str]] = []

    def before_put(name: str) -> None:
        if name.startswith("work/people/records/00002") and not killed[0].returncode:
            killed[0].kill()
            killed[0].wait()

    killed.append(start())
    s3.before_put = staticmethod(before_put)  # type: ignore[assignment]
    killed[0].communicate(timeout=300)
    assert killed[0].returncode == -9 and json.loads(s3.objects[MANIFEST])["workers"]
    s3.before_put = staticmethod(lambda _: None)  # type: ignore[assignment]
    for process in [start(), start()]:
        told = process.communicate(timeout=300)[0]
        assert process.returncode == 0, told
    require_equal(ADDRESS, made_here(tmp_path, images.model_copy(update={"part_rows": 1})), tmp_path / "back")
    assert json.loads(s3.objects[MANIFEST]).keys() == {"schema", "name", "files"}
    assert cli.run(["show", ADDRESS, "--output", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").exists()


def test_it_is_shown_to_programs_as_it_is_to_people(
    tmp_path: Path, images: FolderConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"file://{tmp_path / 'store' / 'people'}"
    ingest_folder(Collection(address), images, read_caption)
    sheet = ["--output", str(tmp_path / "sheet.png")]
    assert cli.run(["show", address, "--json", *sheet]) == 0
    assert json.loads(capsys.readouterr().out)["funnel"]["people"]["ingest"]["kept"] == 5
    assert cli.run(["show", address, *sheet]) == 0
    assert "people" in capsys.readouterr().out
