"""What the form of a stage shows of a project, and what a form that somebody changed makes of the project."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig, group_of
from dreamloom.flows.config_errors import error_lines
from dreamloom.flows.project import Project, model_errors
from dreamloom.flows.selection import StageName
from dreamloom.flows.sources import kind_config


def form_config(project: Project, stage: StageName, source: str | None) -> dict[str, Any]:
    """Returns the config of a stage as project.yaml has it now, in JSON types: what its form opens with.

    Args:
        project: the project, which has the stage.
        stage: the stage.
        source: the source of filter and ingest, whose config is that of their source.
    """
    section = _section(project, stage, source)
    config = kind_config(project.sources[source]) if stage in ("filter", "ingest") and source else section
    return config.model_dump(mode="json")


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
    sent = form.model_dump(mode="json", exclude_unset=True)
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
        fields[name] = {**fields[name], "title": title, "position": position}
        inner = config.model_fields[name].annotation
        for model in (inner, *get_args(inner)):
            if isinstance(model, type) and issubclass(model, BaseModel):
                label_fields(definitions, model)
