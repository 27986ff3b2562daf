"""What a run is measured by: a split of its folder, a folder of held-out images, sets with names of their own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from dreamloom.base.tables.held_out import HeldOutImage, HeldOutImages, write_held_out
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.datasets import read_datasets
from dreamloom.train.evaluate.results import read_evaluation
from dreamloom.train.loop.loop import train
from dreamloom.train.plan import plan
from dreamloom.train.run.folder import run_recipe
from tests.train.conftest import paint

Config = Callable[..., TrainConfig]


def test_a_folder_without_held_out_images_is_split(
    heldout: Path, tiny_base: str, tmp_path: Path, config: Config
) -> None:
    for number in range(12):
        paint(tmp_path / "images" / "own" / f"a thing_{number}.png", (40, 40), number)
        paint(tmp_path / "images" / "known" / f"a scene_{number}.png", (40, 40), 100 + number)
    settings = config(base=tiny_base, held_out=0.25, max_train_steps=2, ground_truth=["known"])
    trained, held = read_datasets(tmp_path / "images", None, settings)
    names = {kind: {sample.name for sample in images.samples} for kind, images in held.items()}
    assert len(trained.samples) + sum(map(len, names.values())) == 24
    assert all(2 <= len(chosen) <= 6 for chosen in names.values())
    assert {name.partition("/")[0] for name in names["ground_truth"]} == {"known"}
    train(tmp_path / "images", tmp_path / "run", settings)
    base = json.loads((tmp_path / "run" / "evaluation.json").read_text())["base"]
    assert {kind: set(losses) for kind, losses in base.items()} == names
    assert [each.images for each in plan(tmp_path / "images", settings).folders] == [
        12 - len(names[kind]) for kind in ("ground_truth", "training")
    ]
    trained, held = read_datasets(tmp_path / "images", heldout, settings)
    assert len(trained.samples) == 24, "images that are given take the place of the split"


def test_nothing_is_held_out_unless_asked(folder: Path, config: Config) -> None:
    assert read_datasets(folder, None, config())[1] == {}


def test_held_out_images_that_are_trained_on_are_named(
    folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    shutil.copytree(heldout, tmp_path / "held")
    shutil.copy(folder / "own" / "a thing_1.png", tmp_path / "held" / "training" / "own" / "renamed.png")
    (note,) = [note for note in plan(folder, config(), heldout=tmp_path / "held").notes if "trained on, too" in note]
    assert note.startswith("1 held-out images") and "training/own/renamed.png" in note
    assert not any("trained on, too" in note for note in plan(folder, config(), heldout=heldout).notes)


def test_what_held_out_images_show_is_in_the_recipe_of_runs_that_look_at_it(
    folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    shutil.copytree(heldout, tmp_path / "held")
    for number in range(3, 6):
        paint(tmp_path / "held" / "ground_truth" / "ground" / f"a scene_{number}.png", (40, 40), 150 + number)

    def recipes(images: HeldOutImages | None) -> list[str]:
        if images is not None:
            write_held_out(tmp_path / "held", images)
        auto = {"auto_ratio": True, "ground_truth": ["ground"], "evaluate_every_n_steps": 1}
        settings = [config(), config(limit_mean=0.1), config(limit_worst=0.1), config(limit_mean=0.1, **auto)]
        return [run_recipe(*read_datasets(folder, tmp_path / "held", each), each) for each in settings]

    name = "ground_truth/ground/a scene_1.png"
    of_captions, empty, tree = recipes(None), recipes({}), recipes({name: HeldOutImage(("tree",))})
    assert of_captions[:2] == empty[:2] == tree[:2]
    for kinds in zip(of_captions[2:], empty[2:], tree[2:], strict=True):
        assert len(set(kinds)) == 3
    assert recipes({name: HeldOutImage(("tree",))}) == tree


def test_sets_with_names_have_measures_and_curves_of_their_own(
    folder: Path, heldout: Path, tiny_base: str, tmp_path: Path, config: Config
) -> None:
    shutil.copytree(heldout, tmp_path / "held")
    paint(tmp_path / "held" / "verdict" / "a portrait.png", (40, 40), 77)
    train(folder, tmp_path / "run", config(base=tiny_base, max_train_steps=2), tmp_path / "held")
    points = json.loads((tmp_path / "run" / "evaluation.json").read_text())["points"]
    assert [list(point["sets"]) for point in points] == [["verdict"], ["verdict"]]
    assert points[0]["sets"]["verdict"]["change"] == 0 != points[1]["sets"]["verdict"]["change"]
    evaluation = read_evaluation(tmp_path / "run")
    assert evaluation is not None and "change of the loss on verdict" in evaluation.measures()
