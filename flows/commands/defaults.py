"""Writes docs/defaults.md: the keys of project.yaml, their defaults, and what a change of each makes anew.

python -m dreamloom.flows.commands.defaults > docs/defaults.md
"""

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from dreamloom.base.stage import BY_CONTENT, Recipe, StageConfig
from dreamloom.flows.project.project import Project
from dreamloom.flows.project.sources import SourceConfig
from dreamloom.scrape.datasets import all_kinds
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.config import PRESETS, DreamBoothConfig
from dreamloom.train.tune.config import TuneConfig

HEAD = """# Defaults

Every key of project.yaml, which is also a flag of the section's command, with its default. `--help` says what each
means. The third column says whether a change of the key makes the results of its section anew: **content** means that a
change of the file or model that it names does, **no** that the key changes speed, output or how much is kept only.
`make docs` writes this page, and a test compares it with the code.
"""


def page() -> str:
    """Returns the page."""
    tables = [f"## {title}\n\n{_table(config)}" for title, config in _sections()]
    presets = [f"| {name} | {_preset(values)} |" for name, values in PRESETS.items()]
    tables.append("## Presets\n\n| `train.preset` | sets |\n|---|---|\n" + "\n".join(presets))
    return "\n".join([HEAD, *(f"{table}\n" for table in tables)])


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yields title and config of each section, in the order of project.yaml."""
    yield "sources, all kinds", SourceConfig
    for kind in all_kinds():
        yield f"sources, `kind: {kind.name}`", kind.config
    for name, field in Project.model_fields.items():
        for config in (field.annotation, *get_args(field.annotation)):
            if isinstance(config, type) and issubclass(config, StageConfig):
                yield name, config
    yield "`dreamloom dreambooth`", DreamBoothConfig
    yield "`dreamloom tune`", TuneConfig
    yield "`dreamloom audit`", AuditConfig


def _table(config: type[BaseModel]) -> str:
    lines = [f"| `{key}` | {_default(field)} | {_anew(field)} |" for key, field in _leaves(config)]
    return "\n".join(["| key | default | anew |", "|---|---|---|", *lines])


def _leaves(config: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields key and field, also of sections within sections."""
    for name, field in config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, f"{above}{name}.")
        else:
            yield f"{above}{name}", field


def _default(field: FieldInfo) -> str:
    return "has to be given" if field.default is PydanticUndefined else f"`{_text(field.default)}`"


def _text(value: Any) -> str:
    """A value as YAML has it, of which JSON is a part."""
    plain = to_jsonable_python(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _anew(field: FieldInfo) -> str:
    mark = next((mark for mark in field.metadata if isinstance(mark, Recipe)), None)
    if mark is None:
        return "yes"
    return "content" if mark is BY_CONTENT else mark.name or "no"


def _preset(values: dict[str, Any]) -> str:
    return ", ".join(f"`{key}: {_text(value)}`" for key, value in values.items())


if __name__ == "__main__":
    print(page(), end="")
