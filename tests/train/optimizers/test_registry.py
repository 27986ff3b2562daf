"""An optimizer is a file and a line: nothing else in the product names it."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from dreamloom.train.config import PRESETS, TrainConfig
from dreamloom.train.optimizers import OPTIMIZERS

HOUSE = Path(__file__).parents[3]
PACKAGES = ("base", "scrape", "caption", "curate", "train", "flows")


@cache
def constants() -> set[tuple[str, str]]:
    """Each file of the product with the texts in it."""
    files = [file for package in PACKAGES for file in (HOUSE / package).rglob("*.py")]
    return {
        (file.relative_to(HOUSE).as_posix(), node.value)
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_code_names_an_optimizer_in_its_own_file_only(name: str) -> None:
    naming = {file for file, text in constants() if text == name}
    in_presets = {"train/config.py"} if any(name in preset.values() for preset in PRESETS.values()) else set()
    assert naming == {f"train/optimizers/{name}.py"} | in_presets


def test_what_each_is_good_for_is_in_the_help() -> None:
    description = TrainConfig.model_fields["optimizer"].description or ""
    assert all(f"{kind.name} {kind.help}" in description for kind in OPTIMIZERS.values() if kind.help)


def test_the_registry_imports_no_library() -> None:
    code = (
        "import sys, dreamloom.train.optimizers; print(*{'torch', 'transformers', 'prodigyopt'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, check=True, capture_output=True, text=True)
    assert not done.stdout.split()
