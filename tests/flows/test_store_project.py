"""A project whose workspace is at an address: its collections and its training set lie there, the rest stays here."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dreamloom.base.errors import UserError
from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.curate.manifest import content_digest, manifest_path
from dreamloom.flows.project.workspace import workspace_of
from dreamloom.train.data.dataset import read_dataset
from tests.flows.commands.test_cli import said
from tests.flows.conftest import Small, make_small
from tests.s3 import S3

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.slow
def test_its_model_is_that_of_a_project_in_a_folder(
    finished: Small, tmp_path: Path, s3: type[S3], capsys: pytest.CaptureFixture[str]
) -> None:
    small = make_small(tmp_path / "there")
    small.change("workspace", to="s3://bucket/own")
    code, out, err = said(["run", str(small.file)], capsys)
    assert code == 0, err
    assert "s3://bucket/own (collections and the training set; the rest stays in" in out
    project, here = small.load(), finished.load()
    own = tmp_path / "there" / "own"
    assert project.workspace == own == workspace_of(small.file) and project.store == "s3://bucket/own"
    assert content_digest(manifest_path(own)) == content_digest(manifest_path(here.workspace))
    weights = {file.relative_to(here.workspace) for file in (here.workspace / "model").rglob("*.safetensors")}
    assert weights
    for file in weights:
        there, wanted = load_file(own / file), load_file(here.workspace / file)
        assert there.keys() == wanted.keys() and all(there[name].equal(wanted[name]) for name in wanted)
    assert not {"collections", "dataset", "heldout"} & {path.name for path in own.iterdir()}
    assert "data:image" in (own / "report" / "index.html").read_text()
    assert "Nothing to do: everything is as project.yaml says." in said(["run", str(small.file)], capsys)[1]
    for line in (["plan", str(small.file)], ["show", str(own)], ["show", "s3://bucket/own/dataset"]):
        code, out, err = said(line, capsys)
        assert code == 0 and "circles" in out, (line, err)
    shutil.rmtree(own)
    shutil.rmtree(cache_folder())
    s3.put, before = [], s3.objects["own/dataset.parquet"]
    code, out, err = said(["run", str(small.file), "--until", "balance"], capsys)
    assert code == 0 and out.count("there already") == 5, "another machine makes nothing again but the table"
    assert {name for name in s3.put if name.endswith((".tar", ".parquet"))} == {"own/dataset.parquet"}
    assert said(["drop", str(small.file), "a red circle_(0)"], capsys)[0] == 0
    assert said(["run", str(small.file), "--until", "balance"], capsys)[0] == 0
    assert s3.objects["own/dataset.parquet"] not in (before, b"")
    table = tmp_path / "dataset.parquet"
    table.write_bytes(s3.objects["own/dataset.parquet"])
    assert content_digest(table) == content_digest(manifest_path(own)) != content_digest(manifest_path(here.workspace))
    assert "a red circle" not in str(read_dataset(own / "dataset", 64, 8, 1).samples)


def test_where_a_store_is_named_is_checked(small: Small) -> None:
    small.change("store", to="s3://bucket/other")
    assert small.load().collection("circles").where == "s3://bucket/other/collections/circles"
    small.change("workspace", to="s3://bucket/own")
    with pytest.raises(UserError, match="workspace and store are two addresses; name a folder as workspace"):
        small.load()
    small.change("store", to=None)
    small.change("workspace", to="s3://bucket/circles")
    with pytest.raises(UserError, match="circles, in which runs and the model are written; write store: s3://bucket"):
        small.load()
    small.change("workspace", to="work")
    small.change("store", to="folder")
    with pytest.raises(UserError, match="store: "):
        small.load()
