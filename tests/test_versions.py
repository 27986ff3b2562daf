"""Releases read one another's files: what a newer minor version added is ignored, a newer major one is one sentence."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.base.versions import FIRST, TABLES, Format, known_fields, rename_keys
from dreamloom.caption.config import CaptionConfig
from dreamloom.curate.config import ChooseConfig, ScoreConfig
from dreamloom.curate.manifest import MANIFEST, read_manifest
from dreamloom.flows.project.project import load_project
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.migrations import RENAMED, migrate_config
from dreamloom.scrape.datasets import all_kinds
from dreamloom.scrape.datasets.folder import FolderConfig
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.measure import Measure
from dreamloom.train.evaluate.results import read_evaluation, stored_recipe
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export, is_current
from dreamloom.train.run import migrations
from dreamloom.train.run.find import find_trained_model
from dreamloom.train.run.folder import TrainSummary, best_checkpoint, check_run_folder, read_config, read_summary

HOUSE = Path(__file__).parents[1]
EXAMPLE = Format("example", "2.1")


# Versions


@pytest.mark.parametrize("version", [None, FIRST, "1.9", "2", 2, 2.1, "2.0", "2.999"])
def test_versions_up_to_the_major_one_can_be_read(version: object) -> None:
    assert EXAMPLE.check(version, Path("a.json")) == (FIRST if version is None else str(version))


def test_a_newer_major_version_is_one_sentence() -> None:
    with pytest.raises(UserError) as error:
        EXAMPLE.check("3.0", Path("a.json"))
    assert str(error.value) == (
        "a.json has version 3.0 of the example format, and this dreamloom reads versions up to 2; update dreamloom."
    )


@pytest.mark.parametrize("version", ["", "two", "2.x", [2], -1, "9" * 100])
def test_what_is_no_version_is_said(version: object) -> None:
    with pytest.raises(UserError, match=r"a\.json has the version"):
        EXAMPLE.check(version, Path("a.json"))


def test_newer_is_newer_also_by_the_minor_number() -> None:
    assert [EXAMPLE.is_newer(version) for version in ("1.9", "2", "2.1", "2.2", "2.10")] == [*[False] * 3, True, True]


def test_values_without_a_field_are_left_out() -> None:
    class Config(StageConfig):
        a: int = 1

    assert known_fields(Config, {"a": 2, "b": 3}) == {"a": 2}
    assert known_fields(Summary, {"rows": 2, "b": 3}) == {"rows": 2}


def test_old_names_become_new_ones() -> None:
    names = {"batch": "batch_size"}
    assert rename_keys({"batch": 4, "seed": 1}, names) == {"batch_size": 4, "seed": 1}
    assert rename_keys({"batch": 4, "batch_size": 8}, names) == {"batch_size": 8}


# Tables


class _Config(StageConfig):
    pass


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    made = Collection(tmp_path / "cats")
    rows = [{"key": "a", "url": "http://example.org/a"}]
    summary = Summary(rows=1, kept=1, parts_done=1)
    made.write(Table.CANDIDATES, "00000", rows, recipe="r", config=_Config(), summary=summary)
    return made


def _rewrite(path: Path, version: str, **columns: list[object]) -> None:
    """Makes of a table what another version of dreamloom would have written."""
    table = pq.read_table(path, partitioning=None)
    metadata = dict(table.schema.metadata)
    summary = json.loads(metadata[b"dreamloom.summary"]) if b"dreamloom.summary" in metadata else {}
    metadata |= {b"dreamloom.schema": version.encode(), b"dreamloom.summary": json.dumps({**summary, "x": 1}).encode()}
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_a_part_says_its_version_which_is_in_no_stamp(collection: Collection) -> None:
    path, before = collection.part_path(Table.CANDIDATES, "00000"), collection.stamp(Table.CANDIDATES, "00000")
    assert pq.read_metadata(path).metadata[b"dreamloom.schema"].decode() == TABLES.version
    _rewrite(path, "1.7")
    assert collection.stamp(Table.CANDIDATES, "00000") == before


def test_what_a_newer_minor_version_added_to_a_part_is_ignored(collection: Collection) -> None:
    before = collection.read(Table.CANDIDATES)
    _rewrite(collection.part_path(Table.CANDIDATES, "00000"), "1.7", colour=["red"])
    assert collection.read(Table.CANDIDATES).equals(before)
    assert collection.summary(Table.CANDIDATES) == Summary(rows=1, kept=1, parts_done=1)


def test_a_part_of_a_newer_major_version_is_refused_and_stays(collection: Collection) -> None:
    path = collection.part_path(Table.CANDIDATES, "00000")
    _rewrite(path, "2.0")
    for read in (collection.read, collection.summary, collection.stamps):
        with pytest.raises(UserError, match=r"00000\.parquet has version 2\.0 of the collection format"):
            read(Table.CANDIDATES)
    with pytest.raises(UserError, match="update dreamloom"):
        collection.recipe(Table.CANDIDATES, "00000")
    assert path.exists()


def test_a_manifest_is_read_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "dataset.parquet"
    row = {"key": "a", "source": "cats", "role": "training", "split": "train"}
    rows = pa.Table.from_pylist([row], schema=MANIFEST).replace_schema_metadata({"dreamloom.recipe": "r"})
    pq.write_table(rows, path)
    _rewrite(path, "1.7", colour=["red"])
    assert read_manifest(path).schema == MANIFEST
    _rewrite(path, "2.0")
    with pytest.raises(UserError, match=r"dataset\.parquet has version 2\.0"):
        read_manifest(path)


# Files of older releases, and of this one when it was made: tests/fixtures/make.py


FIXTURES = HOUSE / "tests" / "fixtures"
OLD = FIXTURES / "release-0.1"
"""Its files say no version, and their keys had other names."""
RELEASES = [OLD, FIXTURES / "release-0.2"]
every_release = pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)


@every_release
def test_the_rows_of_a_collection_are_read(release: Path) -> None:
    collection = Collection(release / "collections" / "circles")
    assert all(len(collection.read(table)) == 5 for table in Table if table is not Table.CANDIDATES)
    assert collection.read(Table.CAPTIONS)["caption"].to_pylist()[0] == "a black circle on white"
    assert [row.summary.kept for row in collection.funnel()] == [5, 5, 5, 5]
    assert len(collection.query("from scores join captions using (key)")) == 5
    assert all(isinstance(path, Path) and path.is_file() for path, _ in collection.samples())


@every_release
def test_the_configs_of_a_collection_have_today_s_keys(release: Path) -> None:
    collection = Collection(release / "collections" / "circles")
    configs: dict[Table, type[StageConfig]] = {
        Table.RECORDS: FolderConfig,
        Table.SCORES: ScoreConfig,
        Table.CAPTIONS: CaptionConfig,
    }
    for table, config in configs.items():
        config.model_validate(collection.config(table, "00000"))
    assert collection.config(Table.SCORES, "00000")["aesthetic_head"] == "demo/models/aesthetic_head.safetensors"
    clip = {"model": "ViT-L-14-quickgelu", "pretrained": "openai", "precision": "fp32"}
    assert collection.config(Table.CAPTIONS, "00000")["clip"] == clip


@every_release
def test_a_manifest_is_read(release: Path) -> None:
    manifest = read_manifest(release / "dataset.parquet")
    assert sorted(manifest["split"].to_pylist()) == ["heldout", "heldout", "train", "train", "train"]


@every_release
def test_a_run_is_read(release: Path) -> None:
    config = read_config(release / "run")
    assert config is not None and (config.bucket_reso_steps, config.lora_rank, config.max_train_steps) == (64, 1, 2)
    summary = read_summary(release / "run")
    assert summary is not None and (summary.dataset_images, summary.total_images, summary.steps) == (3, 4, 2)
    assert find_trained_model(release / "run").checkpoint == release / "run" / "checkpoints" / "4"


@every_release
@pytest.mark.parametrize("name", ["run", "evaluation.json"])
def test_evaluations_are_read(release: Path, name: str) -> None:
    evaluation = read_evaluation(release / name)
    assert evaluation is not None and evaluation.learned is not None
    assert evaluation.learned.images == 2 and evaluation.forgotten is None


@every_release
def test_an_export_is_read(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOUSE)  # the run's base is named from here
    assert not is_current(release / "run", release / "model", ExportConfig(dtype="fp32"))


@every_release
@pytest.mark.slow
def test_the_weights_of_a_run_are_exported(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HOUSE)
    config = ExportConfig(merge_lora=False, single_file=False)
    assert export(release / "run", tmp_path / "model", config).images_seen == 4
    assert (tmp_path / "model" / "lora.safetensors").is_file()


def test_a_project_of_this_release_is_read() -> None:
    project = load_project(FIXTURES / "release-0.2")
    assert project.score is not None and project.train.lora_rank == 1


def test_every_old_key_of_a_part_s_config_has_a_new_one() -> None:
    kinds = [kind.config for kind in all_kinds()]
    configs: dict[Table, list[type[StageConfig]]] = {
        Table.CANDIDATES: [FilterConfig],
        Table.RECORDS: [ScrapeConfig, *(kind for kind in kinds if kind is not FilterConfig)],
        Table.SCORES: [ScoreConfig],
        Table.CHOICES: [ChooseConfig],
        Table.CAPTIONS: [CaptionConfig],
    }
    for table, names in RENAMED.items():
        keys = {key for config in configs[table] for key in config.model_fields}
        assert set(names.values()) <= keys and not names.keys() & keys


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"path": "a", "captions": "auto", "template": "x"}, {"path": "a", "captions": "auto", "caption": "x"}),
        ({"annotations": "a", "caption": "all"}, {"annotations": "a", "caption_choice": "all"}),
        ({"path": "a", "captions": "alt"}, {"path": "a", "caption_kind": "alt"}),
        ({"path": "a", "caption": "a face"}, {"path": "a", "caption": "a face"}),
        ({"path": "a", "word": "first"}, {"path": "a", "name_choice": "first"}),
    ],
)
def test_keys_that_meant_two_things_are_told_apart(old: dict[str, object], new: dict[str, object]) -> None:
    assert migrate_config(Table.RECORDS, FIRST, old) == new


def test_every_old_key_of_a_run_has_a_new_one() -> None:
    stored = json.loads((OLD / "run" / "config.json").read_text("utf-8"))["config"]
    assert {migrations.CONFIG.get(key, key) for key in stored} <= set(TrainConfig.model_fields)
    assert not migrations.CONFIG.keys() & TrainConfig.model_fields.keys()
    assert set(migrations.SUMMARY.values()) <= {field.name for field in fields(TrainSummary)}
    assert set(migrations.MEASURE.values()) <= {field.name for field in fields(Measure)}


def test_an_old_run_s_folder_is_not_taken_for_that_of_a_new_run() -> None:
    config = read_config(OLD / "run")
    assert config is not None
    with pytest.raises(UserError, match="was made with an older release of dreamloom; name a new folder"):
        check_run_folder(OLD / "run", "another recipe", config)


# Files of newer releases


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose files a newer minor version wrote, with keys that this release does not know."""
    folder = tmp_path / "run"
    config = TrainConfig(max_train_steps=3).model_dump(mode="json") | {"new": 1}
    _write(folder / "config.json", {"recipe": "r", "folder": "a", "heldout": None, "config": config, "new": 1})
    _write(folder / "summary.json", {**asdict(TrainSummary(True, 1, 0)), "new": 1})
    measure = asdict(Measure(0.1, None, 1.0, 0.9, 1)) | {"new": 1}
    losses = {"training": {"a": 1.0}}
    evaluation: dict[str, object] = {
        "learned": measure,
        "forgotten": None,
        "base": losses,
        "now": losses,
        "problems": [],
        "new": 1,
    }
    _write(folder / "evaluation.json", {"recipe": "r", "evaluation": evaluation, "new": 1})
    return folder


def _write(file: Path, values: dict[str, object], version: str = "1.7") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"schema": version, **values}), encoding="utf-8")


def test_what_a_newer_minor_version_added_to_a_run_is_ignored(run: Path) -> None:
    config, summary = read_config(run), read_summary(run)
    assert config is not None and config.max_train_steps == 3
    assert summary == TrainSummary(True, 1, 0)
    evaluation = read_evaluation(run / "evaluation.json")
    assert evaluation is not None and evaluation.learned == Measure(0.1, None, 1.0, 0.9, 1)
    assert stored_recipe(run / "evaluation.json") == "r"


@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("config.json", read_config),
        ("summary.json", read_summary),
        ("evaluation.json", read_evaluation),
        ("evaluation.json", best_checkpoint),
        ("evaluation.json", lambda run: stored_recipe(run / "evaluation.json")),
    ],
)
def test_a_newer_major_version_of_a_run_is_refused(run: Path, file: str, read: Callable[[Path], object]) -> None:
    (run / file).write_text((run / file).read_text("utf-8").replace('"1.7"', '"2.0"'), encoding="utf-8")
    with pytest.raises(UserError, match=rf"{file} has version 2\.0 of the run format.*update dreamloom"):
        read(run)


def test_an_export_by_a_newer_major_version_is_not_replaced(tmp_path: Path) -> None:
    _write(tmp_path / "model" / "dreamloom.json", {"recipe": "r"}, "2.0")
    with pytest.raises(UserError, match=r"dreamloom\.json has version 2\.0 of the export format"):
        is_current(OLD / "run", tmp_path / "model", ExportConfig())


@pytest.mark.parametrize("version", ["1", "1.0", "'1.0'", "1.7"])
def test_a_project_may_say_its_version(tmp_path: Path, version: str) -> None:
    assert load_project(_project(tmp_path, f"version: {version}\n")).name == "p"


def test_a_project_of_a_newer_version_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"project\.yaml has version 2 of the project format.*update dreamloom"):
        load_project(_project(tmp_path, "version: 2\nnew: 1\n"))
    with pytest.raises(UserError, match=r"written for version 1\.7 of the format, and this dreamloom knows 1\.0"):
        load_project(_project(tmp_path, "version: 1.7\nnew: 1\nbalance: {ratio: -1}\n"))
    with pytest.raises(UserError, match="has the version 'one'"):
        load_project(_project(tmp_path, "version: one\n"))


def test_what_a_newer_minor_version_added_to_a_project_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = _project(tmp_path, "version: 1.7\nnew: 1\nscrape: {newer: {a: 2}, limit: 3}\n")
    file.write_text(file.read_text().replace("path: images", "path: images, newest: [1]"))
    assert load_project(file).scrape.limit == 3
    for key in ("new", "scrape.newer", "sources.own.newest"):
        assert f"project.yaml: {key} is ignored: it is of version 1.7 of the format." in caplog.text
    file.write_text(file.read_text().replace("version: 1.7", "version: 1.0"))
    with pytest.raises(UserError, match="new: unknown key"):
        load_project(file)


def _project(folder: Path, more: str) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(folder / "images" / "a.png")
    base = HOUSE / "demo" / "models" / "stable-diffusion"
    sources = "sources: {own: {kind: folder, role: training, path: images}}"
    file = folder / "project.yaml"
    file.write_text(f"name: p\nworkspace: work\n{sources}\ntrain: {{base: {base}, resolution: 64}}\n{more}")
    return file
