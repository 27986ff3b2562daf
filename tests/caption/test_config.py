"""What can't be is refused, in one sentence, before any work."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.caption.check import check
from dreamloom.caption.config import CaptionConfig


def test_lengths_that_can_not_be_are_refused() -> None:
    with pytest.raises(ValidationError, match="above max_length"):
        CaptionConfig(min_length=9, max_length=5)


def test_a_model_that_is_none_is_refused_in_one_sentence(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text(json.dumps({"model_type": "blip"}))
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[]")
    for model, words in [
        (str(tmp_path / "nowhere"), "no config.json"),
        ("blip", "no config.json"),
        ("./org/name", "no config.json"),
        (str(tmp_path / "clip"), "of type clip, not blip or blip-2"),
        (str(tmp_path / "bare"), "has no weights"),
        (str(tmp_path / "list"), "no config.json"),
    ]:
        with pytest.raises(UserError, match=words):
            check(CaptionConfig(model=model))
    check(CaptionConfig(model="Salesforce/blip-image-captioning-base"))
    check(CaptionConfig(model=tiny))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"top_p": 0.9, "num_beams": 2}, "top_p draws sentences and num_beams searches"),
        ({"num_candidates": 3}, "needs top_p .* or as many num_beams"),
        ({"num_candidates": 3, "num_beams": 2}, "needs top_p .* or as many num_beams"),
        ({"templates": {"faces": []}}, "templates.faces: needs at least one text"),
        ({"templates": {"faces": ["a", " "]}}, "templates.faces: needs at least one text"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CaptionConfig(**values)


def test_a_clip_is_looked_for_where_one_is_needed(tiny: str, tmp_path: Path) -> None:
    nowhere: dict[str, Any] = {"model": tiny, "clip": ClipConfig(model=str(tmp_path))}
    check(CaptionConfig(**nowhere))
    settings: list[dict[str, Any]] = [
        {"doubtful_below": 0.2},
        {"top_p": 0.9, "num_candidates": 2},
        {"templates": {"a": ["b"]}},
    ]
    for asks in settings:
        with pytest.raises(UserError, match="not an open_clip model"):
            check(CaptionConfig(**nowhere, **asks))
