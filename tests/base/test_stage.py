"""Summaries add up, recipes change with what they name and with nothing else."""

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from dreamloom.base.stage import NO_RECIPE, Group, Recipe, StageConfig, Summary, group_of, recipe, recipe_values


class Config(StageConfig):
    size: int = 1
    workers: int = 2
    share: float = 0.5


counts = st.integers(0, 10**6)
summaries = st.builds(
    Summary,
    rows=counts,
    kept=counts,
    dropped=st.dictionaries(st.sampled_from(["http_404", "timeout"]), counts),
    seconds=st.integers(0, 1000).map(float),
    bytes_written=counts,
    parts_done=counts,
    parts_before=counts,
)


@given(summaries, summaries, summaries)
def test_summaries_add_up_in_any_grouping(a: Summary, b: Summary, c: Summary) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + Summary() == a
    assert (a + b).rows == a.rows + b.rows
    assert sum((a + b).dropped.values()) == sum(a.dropped.values()) + sum(b.dropped.values())


@given(summaries)
def test_a_summary_survives_json(summary: Summary) -> None:
    assert Summary.from_json(summary.to_json()) == summary


def test_a_recipe_names_config_code_models_and_upstream() -> None:
    base = recipe("score", 1, Config())
    others = [
        recipe("caption", 1, Config()),
        recipe("score", 2, Config()),
        recipe("score", 1, Config(size=2)),
        recipe("score", 1, Config(), upstream=["a"]),
        recipe("score", 1, Config(), models={"clip": "a"}),
    ]
    assert len({base, *others}) == 6
    assert recipe("score", 1, Config(), upstream=["a", "b"]) != recipe("score", 1, Config(), upstream=["b", "a"])


def test_a_recipe_hashes_the_fields_that_belong_to_it() -> None:
    class Marked(StageConfig):
        size: int = Field(1, description="An ordinary field.")
        num_workers: Annotated[int, NO_RECIPE] = Field(2, description="Speed only.")
        prompt: Annotated[str, Recipe("words"), Group("Model")] = Field("", description="Of another recipe.")

    assert (
        recipe("score", 1, Marked())
        == recipe("score", 1, Marked(num_workers=8, prompt="a"))
        == recipe("score", 1, {"size": 1})
    )
    assert recipe_values(Marked(prompt="a"), "words") == {"prompt": "a"}
    assert group_of(Marked.model_fields["prompt"]) == "Model" and group_of(Marked.model_fields["size"]) is None


def test_unknown_keys_are_errors() -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"sise": 3})


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_number_is_one(value: str) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Config(share=float(value))
