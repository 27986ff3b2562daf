"""What was learned and forgotten by source and by concept: the worst that is sure comes first."""

import json
from pathlib import Path

import numpy as np
import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.tables.held_out import HeldOutImage, read_held_out, write_held_out
from dreamloom.base.versions import RUN
from dreamloom.train.evaluate.concepts import describe
from dreamloom.train.evaluate.evaluate import read_heldout
from dreamloom.train.evaluate.measure import Evaluation, Losses, compare_losses, measure
from dreamloom.train.evaluate.results import read_evaluation, write_evaluation
from tests.train.conftest import paint

SHAPES = ("heart", "star", "cross")


def world(
    factors: dict[str, float], per_shape: int = 12, kind: str = "ground_truth"
) -> tuple[dict[str, Losses], dict[str, Losses], dict[str, HeldOutImage]]:
    """Losses by kind before and after, and what the images show; a shape's loss changes by its factor."""
    rng = np.random.default_rng(0)
    before: Losses = {}
    after: Losses = {}
    images = {}
    for shape in SHAPES:
        for number in range(per_shape):
            name = f"scenes/a {shape}_{number}.png"
            before[name] = float(rng.lognormal(-2, 0.3))
            after[name] = before[name] * factors.get(shape, 1.0) * float(rng.normal(1, 0.03))
            images[f"{kind}/{name}"] = HeldOutImage((shape,))
    return {kind: before}, {kind: after}, images


def test_the_worst_concept_that_is_sure_comes_before_the_mean() -> None:
    evaluation = compare_losses(*world({"heart": 1.25, "star": 0.9, "cross": 0.9}))
    assert evaluation.forgotten is not None and abs(evaluation.forgotten.change) < 0.06
    assert evaluation.worst is not None and evaluation.worst.name == "heart"
    assert evaluation.verdict.startswith("surely forgotten most: heart 2")
    assert evaluation.verdict.endswith("12 images, rehearsed")
    assert {(g.grouping, g.name, g.images) for g in evaluation.groups} == {
        ("source", "scenes", 36),
        *(("concept", shape, 12) for shape in SHAPES),
    }


def test_nothing_is_called_forgotten_where_nothing_changed() -> None:
    evaluation = compare_losses(*world({}))
    assert evaluation.worst is None
    assert evaluation.verdict == "nothing is surely forgotten, of 4 sources and concepts"


def test_fewer_than_five_images_have_no_interval() -> None:
    evaluation = compare_losses(*world({"heart": 3.0}, per_shape=4))
    assert [group.name for group in evaluation.groups] == ["scenes"]
    base, now, images = world({"heart": 3.0}, per_shape=1)
    assert "not known" in compare_losses(base, now, images).verdict
    assert compare_losses({}, {}, {}).verdict == ""


def test_what_is_not_rehearsed_is_apart() -> None:
    base, now, images = world({})
    other_base, other_now, other_images = world({"star": 1.5}, kind="witness")
    evaluation = compare_losses({**base, **other_base}, {**now, **other_now}, {**images, **other_images})
    assert evaluation.forgotten is not None and evaluation.forgotten_unrehearsed is not None
    assert evaluation.forgotten.change < 0.02 < 0.1 < evaluation.forgotten_unrehearsed.change
    assert evaluation.worst is not None and (evaluation.worst.kind, evaluation.worst.name) == ("witness", "star")
    assert evaluation.verdict.endswith("not rehearsed")


def test_what_was_learned_is_never_called_forgotten() -> None:
    evaluation = compare_losses(*world({"heart": 0.5}, kind="training"))
    heart = next(group for group in evaluation.groups if group.name == "heart")
    assert heart.low < 0.5 < heart.high and heart.sure
    assert evaluation.worst is None and evaluation.verdict == ""


def test_images_that_look_the_same_count_as_one() -> None:
    base, now, images = world({"heart": 1.2})
    copies = {
        name: HeldOutImage(image.concepts, "k" if "heart" in image.concepts else None) for name, image in images.items()
    }
    assert not any(group.name == "heart" for group in compare_losses(base, now, copies).groups)
    alone, together = (
        measure(base["ground_truth"], now["ground_truth"], 1, i, "ground_truth") for i in (images, copies)
    )
    assert alone is not None and together is not None
    assert alone.change == pytest.approx(together.change) and alone.images == together.images == 36
    assert together.error is not None and alone.error is not None and together.error > alone.error


def test_an_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    evaluation = compare_losses(*world({"heart": 1.25}))
    write_evaluation(tmp_path / "evaluation.json", evaluation, "r")
    assert read_evaluation(tmp_path / "evaluation.json") == evaluation
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored["schema"] == RUN.version and stored["evaluation"]["verdict"] == evaluation.verdict
    assert {"kind", "grouping", "name", "images", "change", "low", "high", "shrunk"} == set(
        stored["evaluation"]["groups"][0]
    )


def test_concepts_of_a_folder_come_from_its_file_or_else_from_its_captions(tmp_path: Path) -> None:
    for number in range(12):
        paint(tmp_path / "ground_truth" / "scenes" / f"a {SHAPES[number % 2]}_{number}.png", (32, 32), number)
    found = describe(read_heldout(tmp_path, 32, 8, 1, True))
    assert found["ground_truth/scenes/a heart_0.png"] == HeldOutImage(("heart",))
    write_held_out(tmp_path, {"ground_truth/scenes/a heart_0.png": HeldOutImage(("love", "red"), "k")})
    assert read_held_out(tmp_path) == {"ground_truth/scenes/a heart_0.png": HeldOutImage(("love", "red"), "k")}
    found = describe(read_heldout(tmp_path, 32, 8, 1, True))
    assert found["ground_truth/scenes/a heart_0.png"].concepts == ("love", "red")
    assert found["ground_truth/scenes/a star_1.png"] == HeldOutImage()


@pytest.mark.parametrize("text", ["", "[]", '{"images": 1}', '{"images": {"a": []}}', "{}"])
def test_a_broken_file_of_concepts_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "concepts.json").write_text(text)
    with pytest.raises(UserError, match=r"concepts\.json can't be read"):
        read_held_out(tmp_path)


def test_a_page_shows_the_verdict_as_text() -> None:
    base, now, images = world({"heart": 1.25})
    hostile = {name: HeldOutImage(("<b>",) if "heart" in i.concepts else ()) for name, i in images.items()}
    evaluation: Evaluation = compare_losses(base, now, hostile)
    assert evaluation.verdict.startswith("surely forgotten most: <b> ")
    assert "<b>" not in evaluation._repr_html_()
