"""A kind of source is one module and one line: all that the program knows of it comes from the registry."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from dreamloom.base.stage import group_of, recipe_fields
from dreamloom.flows.project.sources import SourceConfig, kind_config, source_model
from dreamloom.flows.server import project_flows
from dreamloom.scrape.datasets import all_kinds, get_kind

HOUSE = Path(__file__).parents[3]

TOY = '''
"""Folders of images whose names are their captions, written backwards."""

from pathlib import Path

from dreamloom.base.progress import silent
from dreamloom.base.stage import PART_ROWS
from dreamloom.scrape.collection import CaptionKind, key_of
from dreamloom.scrape.datasets.fields import SourceConfig
from dreamloom.scrape.datasets.image_files import ListedFile, find_images
from dreamloom.scrape.datasets.ingest import ingest, part_reader, part_recipes
from dreamloom.scrape.datasets.metadata import ImageMetadata
from dreamloom.scrape.datasets.source_kind import SourceKind, size_of_files
from dreamloom.scrape.datasets.source_recipes import file_version


class ToyConfig(SourceConfig):
    """A folder of toys."""

    toys: Path


def files(config):
    return [ListedFile(key_of("toy", path.name), path, file_version(path)) for path, _ in find_images(config.toys)]


def recipes(collection, config):
    return part_recipes(collection, "ingest toy", config, files(config), PART_ROWS)


def ingest_toy(collection, config, progress=silent, parts=None):
    def metadata(file):
        return ImageMetadata(file.path.stem[::-1], CaptionKind.HUMAN)

    read = part_reader(files(config), PART_ROWS, metadata)
    return ingest(collection, config, recipes(collection, config), read, progress, parts)


def measure(config):
    return size_of_files((path for path, _ in find_images(config.toys)), "toys")


KIND = SourceKind(
    name="toy", help="Bring in toys.", config=ToyConfig, recipes=recipes, ingest=ingest_toy, measure=measure
)
'''

SCRIPT = """
import json
from pathlib import Path
from dreamloom.scrape import datasets
datasets.register("toy", "toy_source")  # the one line

from dreamloom.flows.chain import chain
from dreamloom.flows.plan import forecast, plan
from dreamloom.flows.server import project_flows
from dreamloom.flows.commands.cli import run
from dreamloom.flows.project.project import Project, load_project
from dreamloom.scrape.collection import Collection, Table

project = load_project(Path("project.yaml"))
schema = Project.model_json_schema()
assert run(["ingest", "--help"]) == 0
assert run(["ingest", "toy", "--help"]) == 0
assert run(["ingest", "toy", "collection", "--toys", "toys"]) == 0
found = {
    "union": schema["properties"]["sources"]["additionalProperties"]["discriminator"]["mapping"].get("toy"),
    "rows": plan.source_rows(project, forecast.measure_sources(project)),
    "steps": [step.title for branch in chain.levels(project)[0].branches for step in branch],
    "texts": Collection(Path("collection")).read(Table.RECORDS)["text"].to_pylist(),
    "flow": [project_flows.ingest_toy.name, sorted(project_flows.ingest_toy.parameters.properties)],
}
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_kind_that_is_registered_is_known_everywhere(small: Any, tmp_path: Path) -> None:
    (tmp_path / "toy_source.py").write_text(TOY)
    (tmp_path / "circles").rename(tmp_path / "toys")
    content = yaml.safe_load((tmp_path / "project.yaml").read_text())
    content["sources"] = {"mine": {"kind": "toy", "role": "training", "multiply": 2, "toys": "toys"}}
    (tmp_path / "project.yaml").write_text(yaml.safe_dump(content))
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(HOUSE)!r}]"
    command = [sys.executable, "-c", f"{path}\n{SCRIPT}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    found = json.loads(last)
    assert found["union"] == "#/$defs/ToySource"
    assert [(row["kind"], row["available"].split(",")[0]) for row in found["rows"]] == [("toy", "6 toys")]
    assert found["steps"] == ["ingest mine"]
    assert sorted(text[::-1] for text in found["texts"])[0] == "a black circle_(5)"
    assert found["flow"] == ["ingest-toy", ["config", "project", "source"]]
    assert any("toy" in line and "Bring in toys." in line for line in printed)
    assert any("--toys" in line for line in printed)


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.name)
def test_prefect_finds_the_flow_of_each_kind(kind: Any) -> None:
    name = f"{kind.stage}_{kind.name}"
    flow: Any = load_flow_from_entrypoint(f"dreamloom.flows.server.project_flows.{name}")
    assert flow.name == name.replace("_", "-")
    assert flow is getattr(project_flows, name)
    assert kind.config.__name__ in flow.parameters.definitions
    assert flow.parameters.required == ["project", "config"]


def test_what_is_no_kind_has_no_flow() -> None:
    with pytest.raises(AttributeError, match="no stage and no kind of source is called ingest_laion"):
        _ = project_flows.ingest_laion  # it comes in by `filter`


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.name)
def test_a_kind_is_whole(kind: Any) -> None:
    assert get_kind(kind.name) is kind
    assert kind.help.endswith(".")
    shared = SourceConfig.model_fields.keys() & kind.config.model_fields.keys()
    assert not shared, f"{shared} are keys of every source, and may not be keys of a kind"
    paths = {name for name, field in kind.config.model_fields.items() if "Path" in str(field.annotation)}
    assert not paths & recipe_fields(kind.config), "a recipe knows where a source lies, so that it can't be moved"
    optional = {name: field for name, field in kind.config.model_fields.items() if not field.is_required()}
    assert all(group_of(field) for field in optional.values()), "a field names no group for the help page"
    assert source_model(kind).model_fields.keys() == SourceConfig.model_fields.keys() | kind.config.model_fields.keys()


def test_a_source_s_stage_sees_its_own_fields_only(small: Any) -> None:
    config: Any = kind_config(small.load().sources["squares"])
    assert type(config) is get_kind("folder").config
    assert config.part_rows == 3
