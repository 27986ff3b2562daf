"""The exam: different prompts that nobody was trained on, and marks that count the whole caption."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dreamloom.demo import exam
from dreamloom.demo.exam import ExamResult, Score, concept_scenes, examine, general_scenes
from dreamloom.demo.folders import CONCEPT, CONCEPT_BACKGROUNDS, CONCEPT_COLORS, make_coco, make_concept
from dreamloom.demo.gallery import exhibit
from dreamloom.demo.run import EXAMINED, EXHIBITS
from dreamloom.demo.world import Scene, caption, is_held_out, parse, render

OTHER = {"white": "grey", "grey": "white", "pink": "lime", "lime": "pink", "cyan": "pink"}
"""Background → another."""


def captions(scenes: list[Scene]) -> set[str]:
    return {caption(scene) for scene in scenes}


def test_the_demo_asks_at_least_64_different_prompts_that_no_image_of_its_world_has(tmp_path: Path) -> None:
    concept, general = captions(concept_scenes(EXAMINED)), captions(general_scenes(EXAMINED))
    assert len(concept) == len(general) == EXAMINED >= 64
    make_concept(tmp_path / "zorp")
    taught = {path.stem.partition("_")[0] for path in (tmp_path / "zorp").iterdir()}
    make_coco(tmp_path / "coco")
    annotations = json.loads((tmp_path / "coco" / "annotations" / "captions_val2017.json").read_text())["annotations"]
    described = {a["caption"].strip().rstrip(".").lower() for a in annotations}
    shown = {caption(exhibit(number).scene) for number in range(EXHIBITS)}
    assert not (concept | general) & (taught | described | shown)
    assert all(is_held_out(parse(text)) for text in general)  # the base model has not seen them either


def test_each_zorp_is_new_in_color_or_background_and_the_newest_come_first() -> None:
    new = [
        (s.things[0].color not in CONCEPT_COLORS) + (s.background not in CONCEPT_BACKGROUNDS)
        for s in concept_scenes(1000)
    ]
    assert len(new) == 120 and new == sorted(new, reverse=True) and set(new) == {1, 2}
    assert {s.things[0].shape for s in concept_scenes(1000)} == {CONCEPT}


def test_a_prompt_that_somebody_was_trained_on_is_not_asked() -> None:
    """BLIP may write one for an image that shows something else."""
    first, *others = general_scenes(8)
    assert general_scenes(7, {caption(first)}) == others
    first, *others = concept_scenes(8)
    assert concept_scenes(7, {caption(first)}) == others


def test_a_caption_that_people_wrote_counts_as_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exam, "_draw", lambda _, prompts, __: np.stack([render(parse(text)) for text in prompts]))
    (tmp_path / "model").mkdir()
    asked = examine(tmp_path / "model", tmp_path / "a", 2).prompts
    written = f" {asked[-1].capitalize()}.\n"
    assert asked[-1] not in examine(tmp_path / "model", tmp_path / "b", 2, {written}).prompts


def test_marks_count_the_whole_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that draws is replaced by the world itself, which draws half of the backgrounds wrong."""

    def drawn(_: Path, prompts: list[str], __: int) -> NDArray[np.uint8]:
        scenes = [parse(text) for text in prompts]
        wrong = [replace(scene, background=OTHER[scene.background]) for scene in scenes]
        return np.stack([render(pair[number % 2]) for number, pair in enumerate(zip(scenes, wrong, strict=True))])

    monkeypatch.setattr(exam, "_draw", drawn)
    (tmp_path / "model").mkdir()
    result = examine(tmp_path / "model", tmp_path / "marks", 8)
    assert result.right == [True, False] * 8
    assert result.parts == {"background": 4, "objects": 8, "places": 8, "size": 8, "style": 8}
    assert (result.concept, result.general, result.strays) == (Score(4, 8), Score(4, 8), 0)
    assert examine(tmp_path / "model", tmp_path / "marks", 8) == result
    assert (tmp_path / "marks" / "015.png").exists()


def test_shares_have_wilsons_interval() -> None:
    """58 of 64, by the formula of Wilson 1927 with z = 1.959964: (p + z²/2n ± z√(p(1−p)/n + z²/4n²)) / (1 + z²/n)."""
    z, n, p = 1.959964, 64, 58 / 64
    middle, half = (p + z * z / (2 * n)), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    expected = [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]
    assert Score(58, 64).interval == pytest.approx(expected, abs=1e-5)
    assert str(Score(58, 64)) == "58 of 64, 81 to 96 %"
    assert str(Score(0, 64)) == "0 of 64, 0 to 6 %"


def test_the_picture_shows_the_first_of_each_kind() -> None:
    result = ExamResult(prompts=[str(n) for n in range(20)], right=[True] * 20, num_concept=10, parts={}, strays=0)
    assert result.shown == [0, 1, 10, 11, 12, 13, 14, 15]
