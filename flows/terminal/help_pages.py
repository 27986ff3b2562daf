"""Draws the help page of a command, with its config's flags in the groups that the config's fields name."""

import importlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, get_args, get_origin, get_type_hints

from cyclopts.help import DefaultFormatter, HelpEntry, HelpPanel

if TYPE_CHECKING:
    from cyclopts.help import ColumnSpec
    from rich.console import Console, ConsoleOptions

    from dreamloom.base.stage import StageConfig

_UNTOLD_DEFAULTS = {"False", "[]", "()", "{}", '""'}
"""Defaults that a help page leaves out: a switch that is off, and what is empty."""

_LIST = re.compile(r"[\[(](.*?),?[\])]")


class HelpPage(DefaultFormatter):
    """Draws a help page as cyclopts does, in groups, and without the switches and defaults that tell nothing.

    The command's own parameters come first, and with them the fields that are required or name no group. The groups
    follow, early ones first, in the order in which their first fields are declared.

    Args:
        command: the import path of the command's function, `module:function`, which is looked at when the page is
            drawn; or the config that the command takes; None: the page has no groups.
    """

    def __init__(self, command: "str | type[StageConfig] | None" = None) -> None:
        super().__init__(column_specs=_columns)
        self._command = command

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: HelpPanel) -> None:
        """Draws one panel of the page, as several where its flags are in groups."""
        titles = _titles(self._command) if self._command and panel.format == "parameter" else {}
        for title, entries in _grouped(panel.entries, titles).items():
            shown = panel.copy(entries=[_shortened(entry) for entry in entries])
            shown.title = title or panel.title
            super().__call__(console, options, shown)


def _columns(console: "Console", options: "ConsoleOptions", entries: list[HelpEntry]) -> "tuple[ColumnSpec, ...]":
    """Returns the columns of a help page; the first is wide enough that no flag is broken in two."""
    from cyclopts.help.specs import AsteriskColumn, ColumnSpec, DescriptionColumn, NameRenderer

    longest = max(len(word) for entry in entries for label in entry.display_labels for word in label.split())
    width = min(max(console.width * 35 // 100, longest), console.width // 2)
    name = ColumnSpec(renderer=NameRenderer(width), header="Option", style="cyclopts.name", max_width=width)
    return (AsteriskColumn, name, DescriptionColumn) if any(e.required for e in entries) else (name, DescriptionColumn)


def _titles(command: "str | type[StageConfig]") -> dict[str, str]:
    """Field → title of its group, of the config that the command takes, the early ones first; without those of none."""
    from dreamloom.base.stage import group_of, is_early

    config = _config_of(command) if isinstance(command, str) else command
    fields = sorted(config.model_fields.items(), key=lambda item: not is_early(item[1])) if config else []
    titles = {name: group_of(field) for name, field in fields}
    return {name: title for name, title in titles.items() if title}


def _config_of(command: str) -> "type[StageConfig] | None":
    module, function = command.split(":")
    hint = get_type_hints(getattr(importlib.import_module(module), function), include_extras=True).get("config")
    return get_args(hint)[0] if get_origin(hint) is Annotated else None


def _grouped(entries: Iterable[HelpEntry], titles: dict[str, str]) -> dict[str, list[HelpEntry]]:
    """Title → entries; those of no group come first, under an empty title. Fields of a field are where it is."""
    groups: dict[str, list[HelpEntry]] = {"": []}
    for title in titles.values():
        groups.setdefault(title, [])
    for entry in entries:
        field = entry.names[0].removeprefix("--").split(".")[0].replace("-", "_") if entry.names else ""
        groups["" if entry.required else titles.get(field, "")].append(entry)
    return {title: shown for title, shown in groups.items() if shown}


def _shortened(entry: HelpEntry) -> HelpEntry:
    """The entry without a default that tells nothing, the negation of a switch that is off, and --empty-FLAG."""
    names = tuple(name for name in entry.negative_names if not name.startswith("--empty-"))
    if entry.default in _UNTOLD_DEFAULTS:
        return entry.copy(default=None, negative_names=())
    listed = entry.default is not None and _LIST.fullmatch(entry.default)
    return entry.copy(default=listed[1].replace("'", "") if listed else entry.default, negative_names=names)
