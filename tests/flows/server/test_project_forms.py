"""The forms of a project's deployments: they open with project.yaml, and what is changed in one holds for its run."""

from collections.abc import Iterator
from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.caption.config import CaptionConfig
from dreamloom.flows.project.project_train import ProjectTrainConfig
from dreamloom.flows.server.deployments import ProjectDeployment, form_schema, project_deployments
from dreamloom.flows.server.project_forms import form_config, with_form
from dreamloom.scrape.datasets.folder import FolderConfig


def deployments(small: Any) -> dict[str, ProjectDeployment]:
    return {each.full_name: each for each in project_deployments(small.load(), small.file, None)}


def leaves(key: str, field: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of a form as they are filled in."""
    if "$ref" in field:
        field = definitions[field["$ref"].split("/")[-1]]
    for branch in field.get("anyOf", field.get("allOf", ())):
        yield from leaves(key, branch, definitions)
    if field.get("type") == "object" and "properties" in field:
        for name, inner in field["properties"].items():
            yield from leaves(f"{key}.{name}", inner, definitions)
    elif field.get("type") == "array":
        yield from leaves(f"{key}[]", field["items"], definitions)
    elif "anyOf" not in field and "allOf" not in field:
        yield key, field


def test_names_tell_project_and_stage_and_the_gpu_has_a_queue(small: Any) -> None:
    queues = {name: each.queue for name, each in deployments(small).items()}
    assert queues == {
        "end-to-end/small": "gpu",
        "stage/small": "gpu",
        "ingest-folder/small-circles": "default",
        "ingest-folder/small-squares": "default",
        "choose/small": "default",
        "caption/small": "gpu",
        "balance/small": "default",
        "train/small": "gpu",
        "export/small": "default",
    }


def test_no_field_is_typed_as_json(small: Any) -> None:
    by_hand = [
        f"{name} {key}"
        for name, each in deployments(small).items()
        for key, field in leaves("", form_schema(each), form_schema(each)["definitions"])
        if field.get("type") == "object"
    ]
    assert by_hand == []


def test_a_table_of_words_is_rows_in_a_form_and_what_rows_say_holds(small: Any) -> None:
    small.change("caption", "edit", to={"replace": {"a man": "jo"}})
    project, form = small.load(), form_schema(deployments(small)["caption/small"])
    row = form["definitions"]["EditConfig"]["properties"]["replace"]["items"]
    shown = form_config(project, "caption", None)
    assert shown["edit"]["replace"] == [{"words": "a man", "replacement": "jo"}]
    assert (row["properties"].keys(), row["required"]) == ({"words", "replacement"}, ["words"])
    assert with_form(project, "caption", None, CaptionConfig.model_validate(shown), shown) is project
    shown["edit"]["replace"].append({"words": "a red"})
    sent = CaptionConfig.model_validate(shown)
    changed = with_form(project, "caption", None, sent, form_config(project, "caption", None)).caption
    assert changed.edit.replace == {"a man": "jo", "a red": ""}
    with pytest.raises(ValueError, match="two rows"):
        CaptionConfig.model_validate({"edit": {"replace": [{"words": "a", "replacement": "b"}, {"words": "a"}]}})


def test_a_form_offers_the_project_s_own_stages_and_sources_and_names_groups(small: Any) -> None:
    forms = {name: form_schema(each)["properties"] for name, each in deployments(small).items()}
    assert forms["end-to-end/small"]["sources"]["items"]["enum"] == ["circles", "squares"]
    assert "scrape" not in forms["end-to-end/small"]["until"]["anyOf"][0]["enum"]
    assert forms["stage/small"]["stage"]["enum"] == ["ingest", "choose", "caption", "balance", "train", "export"]
    train = form_schema(deployments(small)["train/small"])["definitions"]["ProjectTrainConfig"]["properties"]
    assert train["batch_size"]["title"] == "Batches and length: batch_size"
    assert (train["batch_size"]["minimum"], train["batch_size"]["maximum"]) == (1, 4096)
    assert train["batch_size"]["description"] == "Images per forward pass."


def test_a_form_opens_with_project_yaml_and_an_untouched_one_changes_nothing(small: Any) -> None:
    shown = deployments(small)["train/small"].parameters["config"]
    assert (shown["resolution"], shown["max_train_steps"]) == (64, 2)
    small.change("train", "max_train_steps", to=9)  # after the form was made
    project = small.load()
    assert with_form(project, "train", None, ProjectTrainConfig.model_validate(shown), shown) is project
    touched = ProjectTrainConfig.model_validate({**shown, "batch_size": 3})
    changed = with_form(project, "train", None, touched, shown).train
    assert (changed.batch_size, changed.max_train_steps) == (3, 9)


def test_what_is_not_sent_is_as_the_project_says(small: Any) -> None:
    small.change("caption", "clip", to={"model": "ViT-B-32"})
    project = small.load()
    shown = form_config(project, "caption", None)
    sent = CaptionConfig.model_validate({"clip": {"precision": "fp32"}})
    clip = with_form(project, "caption", "squares", sent, shown).caption.clip
    assert (clip.model, clip.precision) == ("ViT-B-32", "fp32")
    source = with_form(project, "ingest", "squares", FolderConfig(path=small.folder / "circles"), {}).sources["squares"]
    assert (source.path, source.part_rows) == (small.folder / "circles", 3)  # type: ignore[attr-defined]


def test_what_does_not_go_with_the_project_is_refused(small: Any) -> None:
    with pytest.raises(UserError, match="init_lora needs lora_rank"):
        with_form(small.load(), "train", None, ProjectTrainConfig.model_construct(init_lora=small.file), {})
