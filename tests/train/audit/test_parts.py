"""The formulas, the journal and the vocabulary of an audit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.audit.drift import relative_drifts
from dreamloom.train.audit.journal import Journal
from dreamloom.train.audit.pictures import color_drift, kernel_distance, picture_prompts
from dreamloom.train.audit.statistics import Floats, mean_intervals, shared_intervals
from dreamloom.train.audit.vocabulary import read_vocabulary, whole_vocabulary
from dreamloom.train.diffusion.schedules import DiscreteSchedule


def test_drift_is_measured_in_the_distance_of_another_prompt() -> None:
    measured = {
        "a": {"apart": [1.0, 3.0], "spread": [1.0, 4.0]},
        "b": {"apart": [0.0, 0.0], "spread": [3.0, 0.0]},
    }
    drifts = relative_drifts(measured)
    assert (drifts["a"].tolist(), drifts["b"].tolist()) == ([0.5, 1.5], [0.0, 0.0])
    blind = {"a": {"apart": [2.0], "spread": [0.0]}}
    assert relative_drifts(blind)["a"].tolist() == [2.0], "a model that does not look at prompts"


@given(st.integers(1, 50), st.floats(0, 1))
def test_levels_lie_each_in_its_part_of_the_schedule(levels: int, shift: float) -> None:
    schedule = DiscreteSchedule("epsilon", torch.linspace(1, 0, 1000))
    found = [schedule.spread(level, levels, shift) for level in range(levels)]
    assert len(found) == levels and found == sorted(found) and found[0] >= 0 and found[-1] < 1000


def test_color_drift_sees_colors_and_not_places() -> None:
    picture = Image.effect_noise((64, 64), 80).convert("RGB")
    assert color_drift(picture, picture) == 0.0
    assert color_drift(picture, picture.transpose(Image.Transpose.ROTATE_180)) == 0.0
    red, green = (Image.new("RGB", (64, 64), color) for color in ("red", "green"))
    assert color_drift(red, green) == color_drift(green, red) > 100


def test_the_kernel_distance_is_of_distributions() -> None:
    rng = np.random.default_rng(0)

    def embeddings(shift: float) -> Floats:
        values = rng.normal(size=(1000, 16)) + shift
        return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))

    assert abs(kernel_distance(embeddings(0), embeddings(0))) < 0.02
    assert kernel_distance(embeddings(0), embeddings(0.5)) > 0.2


def test_intervals_hold_the_mean_and_small_groups_have_none() -> None:
    rng = np.random.default_rng(0)
    found = mean_intervals({"moved": 0.5 + 0.1 * rng.normal(size=20), "still": np.zeros(20), "few": np.ones(4)})
    assert found.keys() == {"moved", "still"}
    assert 0.3 < found["moved"][0] < 0.5 < found["moved"][1] < 0.7
    assert found["still"][0] < 0 < found["still"][1]
    assert shared_intervals(np.zeros(10), {"a": range(10), "b": range(5, 10), "c": range(3)}) == {
        "a": (0.0, 0.0),
        "b": (0.0, 0.0),
    }


def test_a_journal_that_a_kill_cut_off_loses_its_last_line_alone(tmp_path: Path) -> None:
    file = tmp_path / "measured" / "drift.jsonl"
    for key in ("a", "b"):
        Journal(file).put(key, {"value": 1})
    file.write_bytes(file.read_bytes()[:-4])
    journal = Journal(file)
    assert journal.results == {"a": {"value": 1}}
    journal.put("c", {"value": 2})
    assert Journal(file).results == {"a": {"value": 1}, "c": {"value": 2}}


def test_the_vocabulary_is_things_styles_and_then_imagenet_or_the_user_s(tmp_path: Path) -> None:
    config = AuditConfig()
    shipped = read_vocabulary(config)
    assert len(shipped) == 120 and shipped[0] == "a photo of a person" and "an oil painting" in shipped
    whole = whole_vocabulary(config)
    assert whole[:120] == shipped and "a photo of a tench" in whole and len(whole) > 1000
    file = tmp_path / "mine.txt"
    file.write_text("# mine\na red car\n\n a red car \na café\n", encoding="utf-8")
    assert read_vocabulary(AuditConfig(vocabulary=file)) == ["a red car", "a café"]
    file.write_text("# nothing\n")
    with pytest.raises(UserError, match="holds no prompt"):
        read_vocabulary(AuditConfig(vocabulary=file))
    with pytest.raises(UserError, match="can't be read"):
        read_vocabulary(AuditConfig(vocabulary=tmp_path / "none.txt"))


def test_pictures_are_of_prompts_spread_over_the_vocabulary() -> None:
    assert picture_prompts(["a", "b", "c", "d"], 2) == ["a", "c"]
    assert picture_prompts(["a", "b"], 5) == ["a", "b", "a", "b", "a"]
