"""What pydantic finds is said in the user's own keys."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dreamloom.flows.project.config_errors import dotted_key, error_lines, flag_name


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Words(Strict):
    any: list[str] = []


class Web(Strict):
    kind: Literal["web"]
    min_side: int = Field(256, ge=1)
    words: Words = Words()


class Disk(Strict):
    kind: Literal["disk"]
    path: Path
    limit: int | Literal["all"] = "all"


class Mix(Strict):
    ratio: float = Field(1.0, gt=0)
    high: int = 2

    @model_validator(mode="after")
    def _ordered(self) -> "Mix":
        if self.high == 13:
            raise ValueError("high 13 is unlucky")
        return self


class Everything(Strict):
    sources: dict[str, Annotated[Web | Disk, Field(discriminator="kind")]]
    mix: Mix | None = None


def said(value: object, model: type[BaseModel] = Everything) -> list[str]:
    with pytest.raises(ValidationError) as error:
        model.model_validate(value)
    return error_lines(error.value, model)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"kind": "web", "min_sde": 1}, "sources.a.min_sde: unknown key; did you mean min_side?"),
        ({"kind": "web", "zzz": 1}, "sources.a.zzz: unknown key; valid: kind, min_side, words"),
        ({"kind": "web", "min_side": 0}, "sources.a.min_side: should be greater than or equal to 1, not 0"),
        ({"kind": "web", "words": {"an": []}}, "sources.a.words.an: unknown key; did you mean any?"),
        (
            {"kind": "web", "words": {"any": ["x", 3]}},
            "sources.a.words.any[1]: should be text, not the number 3; put it in quotes",
        ),
        ({"kind": "web", "min_side": None}, "sources.a.min_side: is empty; write a value, or leave it out"),
        ({"kind": "disk", "path": None}, "sources.a.path: is empty; write a value"),
        ({"kind": "disk", "path": ".", "limit": None}, "sources.a.limit: is empty; write a value, or leave it out"),
        ({"kind": "web", "words": None}, "sources.a.words: is empty; write keys below it, or leave it out"),
        ({"kind": "web", "words": {"any": "x"}}, "sources.a.words.any: should be a list, not 'x'"),
        ({"kind": "disk"}, "sources.a.path: is missing"),
        ({"kind": "disc"}, "sources.a.kind: disc is none of web, disk"),
        ({}, "sources.a.kind: is missing"),
        (
            {"kind": "disk", "path": "x", "limit": "some"},
            "sources.a.limit: should be a valid integer, unable to parse string as an integer, not 'some'; "
            "or should be 'all', not 'some'",
        ),
    ],
)
def test_names_the_key_that_is_wrong(source: dict[str, object], sentence: str) -> None:
    assert said({"sources": {"a": source}}) == [sentence]


def test_sections_that_may_be_left_out_are_named_like_others() -> None:
    assert said({"sources": {}, "mix": {"ratio": 0}}) == ["mix.ratio: should be greater than 0, not 0"]
    assert said({"sources": {}, "mix": {"high": 13}}) == ["mix: high 13 is unlucky"]
    assert said({"sources": {}, "mix": 3}) == ["mix: should be keys and values, not 3"]


def test_each_wrong_key_has_a_line() -> None:
    value = {"sources": {"a": {"kind": "web", "min_side": 0}, "b": {"kind": "disk"}}, "mixx": 1}
    assert [line.split(":")[0] for line in said(value)] == ["sources.a.min_side", "sources.b.path", "mixx"]


def test_the_whole_being_wrong_has_no_key() -> None:
    assert said({"high": 13}, Mix) == ["high 13 is unlucky"]


def test_keys_are_spelled_as_they_are_written() -> None:
    assert dotted_key(("sources", "a", "words", "any", 1)) == "sources.a.words.any[1]"
    assert flag_name(("words", "any", 1)) == "--words.any"
    assert flag_name(("min_side",)) == "--min-side"


def test_keys_of_other_trainers_are_answered_with_ours() -> None:
    from dreamloom.flows.project.renamed import _OF_OTHER_TRAINERS
    from dreamloom.train.config import TrainConfig

    fields = TrainConfig.model_fields.keys()
    assert set(_OF_OTHER_TRAINERS.values()) <= fields
    assert not _OF_OTHER_TRAINERS.keys() & fields
