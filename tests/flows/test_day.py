"""A day with a project: each change is made, the fewest stages run, and a clean project ends with the same."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from PIL import Image, ImageDraw

from dreamloom.base.progress import silent
from dreamloom.caption.sidecar import read_caption
from dreamloom.curate.manifest import read_manifest
from dreamloom.flows.chain import chain
from dreamloom.flows.chain.steps import Outcome, Step
from dreamloom.flows.commands.cli import run
from dreamloom.scrape.collection import Table
from tests.flows.conftest import HOUSE, Small
from tests.scrape.datasets.test_collection import state

pytestmark = pytest.mark.slow

COLOURS = ["red", "green", "blue", "orange", "purple", "black", "gold", "pink", "gray", "brown", "navy", "lime"]


def draw(folder: Path, shape: str, sides: int, count: int) -> None:
    folder.mkdir()
    for place, colour in enumerate(COLOURS[:count]):
        image = Image.new("RGB", (80, 64), "white")
        ImageDraw.Draw(image).regular_polygon((36 + place, 32, 14 + place), sides, fill=colour)
        image.save(folder / f"a {colour} {shape}_({place}).png")


def made(small: Small, train: bool = False) -> set[str]:
    """Runs the chain, up to training unless `train`, and returns what was made, or would be by training."""
    found = set()

    def perform(step: Step) -> Outcome:
        if step.stage == "train" and not train and step.stale_parts():
            found.add(step.title)
            return Outcome("", changed=False, finished=False)
        outcome = step.run(silent)
        found.update({step.title} if outcome.changed else ())
        return outcome

    chain.run(small.load(), perform)
    return found


def content(small: Small) -> list[pa.Table]:
    """All tables of a project, without the places of the originals; then the manifest."""
    collections = [small.load().collection(name) for name in small.load().sources]
    tables = [collection.read(table) for collection in collections for table in Table]
    manifest = read_manifest(small.workspace / "dataset.parquet")
    return [table.drop_columns(["path"]) if "path" in table.column_names else table for table in [*tables, manifest]]


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def weights(small: Small) -> dict[str, bytes]:
    """The networks of the exported model. The single file has the same ones, and a thumbnail of what it drew."""
    model = files(small.workspace / "model")
    return {name: data for name, data in model.items() if "/" in name and name.endswith(".safetensors")}


def test_a_day(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shape, sides, count in (("circles", "circle", 30, 12), ("squares", "square", 4, 4)):
        shutil.rmtree(small.folder / name)
        draw(small.folder / name, shape, sides, count)
    draw(small.folder / "triangles", "triangle", 3, 3)
    small.change("score", to={"model": str(HOUSE / "demo" / "models" / "clip")})
    small.change("choose", to={"near_duplicates": "off"})
    for key, value in {"max_train_steps": None, "epochs": 1, "batch_size": 1, "evaluate_every_n_steps": 0}.items():
        small.change("train", key, to=value)
    file, circles = str(small.file), small.workspace / "dataset" / "circles"
    both = {f"{stage} {name}" for stage in ("ingest", "score", "caption") for name in ("circles", "squares")}
    assert made(small, train=True) == both | {"choose", "balance", "train", "export"}

    def decided(*tokens: str) -> set[str]:
        assert run([tokens[0], file, *tokens[1:]]) == 0
        return made(small)

    # ten are thrown out, one gets another caption, one is cropped
    ten = [f"a {colour} circle_({place})" for place, colour in list(enumerate(COLOURS))[2:]]
    assert decided("drop", *ten[:-1], "--reason", "dull") == {"choose", "caption circles", "balance", "train"}
    assert decided("drop", ten[-1]) == {"choose", "caption circles", "balance", "train"}
    assert decided("undo") == decided("drop", ten[-1]) == {"choose", "caption circles", "balance", "train"}
    assert decided("recaption", "a red circle_(0)", "--caption", "a ruby circle") == {
        *("caption circles", "balance", "train")
    }
    assert decided("crop", "a green circle_(1)", "--box", "0,0,0.5,1", "--focus", "0.5,0.2") == {"balance", "train"}
    shown = {read_caption(image).text: Image.open(image).size for image in small.workspace.rglob("*/circles/*.png")}
    assert shown == {"a ruby circle": (80, 64), "a green circle": (40, 64)}

    # another ratio, a source more, another name for the subject
    small.change("balance", "ratio", to=2)
    assert made(small) == {"balance", "train"}
    small.change("sources", "triangles", to={"kind": "folder", "role": "ground_truth", "path": "triangles"})
    new = {"ingest triangles", "score triangles", "caption triangles"}
    assert made(small) == new | {"choose", "balance", "train"}
    small.change("sources", "circles", "edit", to={"replace": {"circle": "zorb"}})
    assert made(small, train=True) == {"caption circles", "balance", "train", "export"}
    assert {read_caption(image).text for image in circles.glob("*.png")} <= {"a ruby circle", "a green zorb"}

    # another prompt, more epochs, two runs side by side
    before = weights(small)
    small.change("train", "sample_prompts", to=["a red circle", "a zorb"])
    assert made(small, train=True) == {"train"} and weights(small) == before
    first, second = (chain.run_folder(small.load()), sorted((small.workspace / "runs").glob("2*"))[0])
    assert run(["continue", str(first), "--epochs", "2"]) == 0
    small.change("train", "epochs", to=2)
    assert made(small, train=True) == {"train", "export"}, "train draws the prompt that the longer run has not drawn"
    assert len(list((small.workspace / "runs").glob("2*"))) == 3
    capsys.readouterr()
    assert run(["compare", str(second), str(chain.run_folder(small.load())), "--output", str(small.folder / "c")]) == 0
    told = capsys.readouterr().out
    assert "ratio" not in told and "epochs" in told and "zorb" in told
    assert made(small, train=True) == set()

    # a second project on the same ground truth, which stays as it is
    library = small.workspace / "collections" / "squares"
    before_sharing, scores = state(library), small.load().collection("squares").read(Table.SCORES)
    other = Small(small.folder / "other")
    other.folder.mkdir()
    shutil.copyfile(small.file, other.file)
    other.change("sources", "squares", to={"kind": "collection", "role": "ground_truth", "path": str(library)})
    for name in ("circles", "triangles"):
        other.change("sources", name, "path", to=f"../{name}")
    assert {title for title in made(other) if title.endswith("squares")} == {
        f"{s} squares" for s in ("ingest", "score", "caption")
    }
    assert other.load().collection("squares").read(Table.SCORES) == scores and state(library) == before_sharing

    # a clean project with the same config and decisions
    clean = Small(small.folder / "clean")
    for name in ("circles", "squares", "triangles"):
        shutil.copytree(small.folder / name, clean.folder / name)
    clean.file.write_text(yaml.safe_dump(yaml.safe_load(small.file.read_text())))
    table = str(small.folder / "decisions.csv")
    assert run(["decisions", "export", file, table]) == run(["decisions", "import", str(clean.file), table]) == 0
    made(clean, train=True)
    assert content(clean) == content(small)
    for name in ("dataset", "heldout"):
        assert files(clean.workspace / name) == files(small.workspace / name)
    assert weights(clean) == weights(small)
