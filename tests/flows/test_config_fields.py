"""No field of a config is dead: some code outside the config's own class reads each."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from dreamloom.flows.project import Project
from dreamloom.train.config import DreamBoothConfig

HOUSE = Path(__file__).parents[2]


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
        for root in (Project, DreamBoothConfig)
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
    wanted = {"FilterConfig", "ScrapeConfig", "Words", "FolderConfig", "ScoreConfig", "TrainConfig", "ExportConfig"}
    assert wanted | {"EditConfig", "DreamBoothConfig"} <= {owner for _, owner, _ in FIELDS}
