"""No field of a config is dead, and each is in a recipe or says that it is not.

A field that changes the result but is in no recipe would leave stale results in place.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter

from dreamloom.base.stage import Recipe, StageConfig, recipe, recipe_values
from dreamloom.caption.compress.config import CompressConfig
from dreamloom.flows.project.project import Project
from dreamloom.flows.project.sources import SourceConfig
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.config import DreamBoothConfig

HOUSE = Path(__file__).parents[2]
PACKAGES = ("scrape", "caption", "curate", "train", "flows")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_in(field.annotation)
    for argument in get_args(annotation):
        yield from models_in(argument)


FIELDS = sorted(
    {
        (owner.__module__, owner.__name__, name)
        for root in (Project, DreamBoothConfig, AuditConfig, CompressConfig)
        for model in models_in(root)
        for owner in model.__mro__
        for name in getattr(owner, "__annotations__", ())
        if name in model.model_fields
    }
)


@cache
def sources(package: str) -> list[tuple[Path, ast.Module]]:
    return [(file, ast.parse(file.read_text(encoding="utf-8"))) for file in (HOUSE / package).rglob("*.py")]


@cache
def read_outside(module: str, owner: str) -> set[str]:
    """The names that the owner's package, and flows, read; without what the class itself reads."""
    names: set[str] = set()
    for package in {module.split(".")[1], "flows"}:
        for file, tree in sources(package):
            own = ".".join(("dreamloom", *file.relative_to(HOUSE).with_suffix("").parts)) == module
            body = [n for n in tree.body if not (own and isinstance(n, ast.ClassDef) and n.name == owner)]
            nodes = [node for part in body for node in ast.walk(part)]
            names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
            if any(is_lookup(node) for node in nodes):  # a name in a list of names may be looked up
                names |= {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return names


def is_lookup(node: ast.AST) -> bool:
    """Whether it is getattr(config, variable)."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"):
        return False
    return len(node.args) == 2 and isinstance(node.args[1], ast.Name)


@pytest.mark.parametrize(("module", "owner", "name"), FIELDS, ids=[f"{o}.{n}" for _, o, n in FIELDS])
def test_a_field_is_read(module: str, owner: str, name: str) -> None:
    assert name in read_outside(module, owner), f"nothing reads {owner}.{name}"


def test_the_walk_reaches_every_stage() -> None:
    wanted = {"FilterConfig", "ScrapeConfig", "Words", "FolderConfig", "ScoreConfig", "DataSettings", "ExportConfig"}
    assert wanted | {"EditConfig", "DreamBoothConfig"} <= {owner for _, owner, _ in FIELDS}


STAGE_FIELDS = sorted(
    {
        (model, name)
        for root in (Project, DreamBoothConfig, AuditConfig, CompressConfig)
        for model in models_in(root)
        if model is not Project  # has the configs of the stages, and is hashed by none
        for name in model.model_fields
        if not (issubclass(model, SourceConfig) and name in SourceConfig.model_fields)  # balance hashes its sources
    },
    key=lambda field: (field[0].__name__, field[1]),
)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize(("model", "name"), STAGE_FIELDS, ids=[f"{m.__name__}.{n}" for m, n in STAGE_FIELDS])
def test_a_field_is_in_a_recipe_or_says_that_it_is_not(model: type[BaseModel], name: str) -> None:
    assert issubclass(model, StageConfig)
    marks = [mark for mark in model.model_fields[name].metadata if isinstance(mark, Recipe)]
    assert len(marks) <= 1, "a field belongs to one recipe"
    before = model.model_construct()
    after = before.model_copy(update={name: "changed"})
    changes_recipe = recipe("stage", 1, before) != recipe("stage", 1, after)
    assert changes_recipe == (not marks)
    if marks and marks[0].name:
        assert recipe_values(before, marks[0].name) != recipe_values(after, marks[0].name)


def test_recipes_that_fields_name_are_computed() -> None:
    """By recipe_values(config, MARK.name); or by recipe("name", …), where a field goes into it in part only."""
    marks = {
        (constant, mark.name)
        for model, _ in STAGE_FIELDS
        for constant, mark in vars(sys.modules[model.__module__]).items()
        if isinstance(mark, Recipe) and mark.name
    }
    assert marks
    nodes = [node for package in PACKAGES for _, tree in sources(package) for node in ast.walk(tree)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    stages = {ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "recipe"}
    names = {ast.unparse(call.args[-1]) for call in calls if ast.unparse(call.func) == "recipe_values"}
    assert [name for constant, name in marks if f"{constant}.name" not in names and repr(name) not in stages] == []


def test_a_choice_of_numbers_may_come_as_text_as_from_the_command_line() -> None:
    found = 0
    for model in {model for root in (Project, DreamBoothConfig, AuditConfig) for model in models_in(root)}:
        for field in model.model_fields.values():
            literals = [field.annotation, *get_args(field.annotation)]
            choices = [choice for each in literals if get_origin(each) is Literal for choice in get_args(each)]
            hint: Any = Annotated[field.annotation, *field.metadata, ""]
            for number in (choice for choice in choices if isinstance(choice, int)):
                assert TypeAdapter(hint).validate_python(str(number)) == number
                found += 1
    assert found
