"""The shape of the house: who may import whom, that no circle exists, and that configs cost nothing to import.

Every import counts: at the top of a module, inside a function, and for type checkers only.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
PACKAGES = ("base", "scrape", "caption", "curate", "train", "flows", "demo")

MAY_IMPORT = {
    "base": set[str](),
    "scrape": {"base"},
    "caption": {"base", "scrape"},
    "curate": {"base", "scrape", "caption"},
    "train": {"base", "caption"},
    "flows": {"base", "scrape", "caption", "curate", "train"},
    "demo": {"base", "scrape", "caption", "curate", "train", "flows"},
}
"""Package → the packages that it may import."""

ROOMS = {
    "base": [
        {"errors", "text", "progress", "threads", "processes", "stop", "cpu", "apportion"},
        {"files"},
        {"versions"},
        {"images", "tables", "sharing"},
        {"html"},
        {"stage"},
        {"models"},
    ],
    "scrape": [{"collection"}, {"index"}, {"datasets"}, {"web"}],
    "train": [
        {"adapter_kinds", "config_fields", "optimizers", "samplers"},
        {"settings"},
        {"config"},
        {"diffusion"},
        {"model"},
        {"families"},
        {"data"},
        {"objectives"},
        {"run"},
        {"evaluate"},
        {"export", "audit"},
        {"loop"},
        {"plan", "dreambooth", "tune"},
    ],
    "flows": [{"terminal"}, {"project"}, {"report"}, {"chain"}, {"plan", "server"}, {"api"}, {"commands"}],
}
"""Package → its rooms and files, floor by floor. A room imports from the floors below it, and from itself."""

ONLY_IN_FLOWS = {"prefect", "cyclopts"}
HEAVY = ("torch", "diffusers", "transformers", "open_clip", "pandas", "prefect", "matplotlib", "cv2", "duckdb")
"""What no config may import: the command line, forms and editors read configs alone."""


# The graph


@cache
def modules() -> Mapping[str, Path]:
    """The name of every module of the product → its file."""
    found = {}
    for package in PACKAGES:
        for path in (HOUSE / package).rglob("*.py"):
            parts = path.relative_to(HOUSE).with_suffix("").parts
            found[".".join(("dreamloom", *parts)).removesuffix(".__init__")] = path
    return found


@cache
def imports() -> Mapping[str, set[str]]:
    """Module → the names that it imports, as far as they are modules: of dreamloom whole, of others the first word."""
    return {name: set(_imported(name, path)) for name, path in modules().items()}


def _imported(name: str, path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (_module(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(name, path, node)
            yield from (_module(f"{module}.{alias.name}") for alias in node.names)


def _absolute(name: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    base = parts if path.name == "__init__.py" else parts[:-1]
    return ".".join([*base[: len(base) - node.level + 1], *([node.module] if node.module else [])])


def _module(name: str) -> str:
    """The module that a dotted name is, or is in."""
    if not name.startswith("dreamloom."):
        return name.split(".")[0]
    while name not in modules() and "." in name:
        name = name.rpartition(".")[0]
    return name


def circles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The groups of modules that import one another (strongly connected components, by Tarjan's algorithm)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = set()

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in graph[node] & graph.keys():
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            members = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(members) > 1 or node in graph[node]:
                found.add(frozenset(members))

    for node in graph:
        if node not in order:
            visit(node)
    return found


# The rules


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert not circles(imports())


def test_packages_import_in_one_direction() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in sorted(others)
        if other.startswith("dreamloom.")
        and _package(other) != _package(name)
        and _package(other) not in MAY_IMPORT[_package(name)]
    ]
    assert not wrong


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_from_the_floors_below(package: str) -> None:
    floor = {room: number for number, rooms in enumerate(ROOMS[package]) for room in rooms}
    wrong = defaultdict(list)
    for name, others in imports().items():
        if not name.startswith(f"dreamloom.{package}."):
            continue
        room = name.split(".")[2]
        assert room in floor, f"{name} is in no room; put it into one, or {room} on a floor"
        for other in others:
            if other.startswith(f"dreamloom.{package}."):
                other_room = other.split(".")[2]
                if other_room != room and floor[other_room] >= floor[room]:
                    wrong[f"{room} → {other_room}"].append(f"{name} imports {other}")
    assert not wrong


def test_prefect_and_the_command_line_are_known_to_flows_only() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in sorted(others & ONLY_IN_FLOWS)
        if _package(name) != "flows"
    ]
    assert not wrong


def test_configs_import_nothing_heavy() -> None:
    configs = sorted(name for name in modules() if name.endswith(".config"))
    assert configs
    code = f"import sys, {', '.join(configs)}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, check=True, capture_output=True, text=True)
    assert not done.stdout.split()


def _package(module: str) -> str:
    return module.split(".")[1]


# That the rules see what they shall see


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {frozenset("bc")}
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_imports_are_seen_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from dreamloom.train.config import TrainConfig\n"
        "def f():\n    import torch.nn\n    from dreamloom.base.files import atomic as files\n"
    )
    assert set(_imported("dreamloom.example", file)) == {
        "typing",
        "dreamloom.train.config",
        "torch",
        "dreamloom.base.files.atomic",
    }
