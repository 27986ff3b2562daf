"""What the form of a stage shows of a project, and what a form that somebody changed makes of the project.

A table of words, such as `edit.replace`, is a list of rows in a form: for any keys a dashboard has no field but JSON.
"""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig, group_of
from dreamloom.flows.chain.selection import StageName
from dreamloom.flows.project.config_errors import error_lines
from dreamloom.flows.project.project import Project, model_errors
from dreamloom.flows.project.sources import kind_config


def form_config(project: Project, stage: StageName, source: str | None) -> dict[str, Any]:
    """Returns the config of a stage as project.yaml has it now, in JSON types: what its form opens with.

    Args:
        project: the project, which has the stage.
        stage: the stage.
        source: the source of filter and ingest, whose config is that of their source.
    """
    section = _section(project, stage, source)
    config = kind_config(project.sources[source]) if stage in ("filter", "ingest") and source else section
    return _in_rows(config.model_dump(mode="json"), type(config))


def with_form(
    project: Project, stage: StageName, source: str | None, form: StageConfig, shown: Mapping[str, Any]
) -> Project:
    """Returns a project with what was changed in a stage's form. The rest stays as the project says.

    Args:
        project: as it is now, which may be later than the form was made.
        stage: the stage.
        source: the source of filter and ingest.
        form: what was sent; fields that were not sent are not changed.
        shown: what the form opened with.

    Raises:
        UserError: the changed values do not go with the project's.
    """
    sent = _in_rows(form.model_dump(mode="json", exclude_unset=True), type(form))
    changed = {name: value for name, value in sent.items() if name not in shown or shown[name] != value}
    if not changed:
        return project
    section = _section(project, stage, source)
    try:
        new = type(section).model_validate(_merged(section, changed))
    except ValidationError as error:
        raise UserError("\n".join(error_lines(error, type(section)))) from None
    if stage in ("filter", "ingest"):
        update: dict[str, Any] = {"sources": {**project.sources, source: new}}
    else:
        update = {stage: new}
    updated = project.model_copy(update=update)
    if errors := list(model_errors(updated)):
        raise UserError("\n".join(errors))
    return updated


def _section(project: Project, stage: StageName, source: str | None) -> StageConfig:
    """The section of project.yaml that holds a stage's config."""
    if stage in ("filter", "ingest"):
        project.collection(source or "")  # which says what sources there are
        return project.sources[source or ""]
    if stage == "choose":
        return project.choose_config()
    section = getattr(project, stage)
    if section is None:
        raise UserError(f"{project.name} has no {stage} section; write one.")
    assert isinstance(section, StageConfig)
    return section


def _merged(section: BaseModel, changed: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were set in a section, with the changed ones; sections in it are merged likewise."""
    values = section.model_dump(exclude_unset=True)
    for name, value in changed.items():
        inner = getattr(section, name)
        values[name] = _merged(inner, value) if isinstance(inner, BaseModel) and isinstance(value, dict) else value
    return values


def label_fields(definitions: Mapping[str, Any], config: type[BaseModel]) -> None:
    """Labels the fields in a form's JSON schema as project.yaml spells them, after their groups, group by group.

    Args:
        definitions: JSON schemas by the names of their models; changed in place.
        config: the model of the form.
    """
    groups = {name: group_of(field) or "" for name, field in config.model_fields.items()}
    titles = sorted(set(groups.values()), key=list(groups.values()).index)
    fields = definitions[config.__name__]["properties"]
    ordered = sorted(fields, key=lambda name: titles.index(groups[name]))
    for position, name in enumerate(ordered):
        title = f"{groups[name]}: {name}" if groups[name] else name
        field = config.model_fields[name]
        shown = {"description": field.description, **_ROWS} if _is_table(field) else fields[name]
        fields[name] = {**shown, "title": title, "position": position}
        for model in _models(field):
            label_fields(definitions, model)


_ROWS: dict[str, Any] = {
    "type": "array",
    "default": [],
    "items": {
        "type": "object",
        "title": "row",
        "properties": {name: {"title": name, "type": "string"} for name in ("words", "replacement")},
        "required": ["words"],
    },
}
"""The JSON schema of a table of words; see EditConfig."""


def _in_rows(values: Mapping[str, Any], config: type[BaseModel]) -> dict[str, Any]:
    """The values of a config as its form has them."""
    shown = dict(values)
    for name, value in values.items():
        if _is_table(config.model_fields[name]):
            shown[name] = [{"words": words, "replacement": replacement} for words, replacement in value.items()]
        elif isinstance(value, dict):
            for model in _models(config.model_fields[name]):
                if value.keys() <= model.model_fields.keys():
                    shown[name] = _in_rows(value, model)
    return shown


def _is_table(field: FieldInfo) -> bool:
    return field.annotation == dict[str, str]


def _models(field: FieldInfo) -> Iterator[type[BaseModel]]:
    """The models that a field takes."""
    for model in (field.annotation, *get_args(field.annotation)):
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield model
