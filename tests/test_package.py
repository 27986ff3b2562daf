"""What is installed: one package, whole, that gets along with whatever lies in the folder in which it is used."""

import ast
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
PACKAGES = ("base", "scrape", "caption", "curate", "train", "flows", "demo")
"""The packages of dreamloom, which were importable by these bare names once."""
VERSION = tomllib.loads((HOUSE / "pyproject.toml").read_text("utf-8"))["project"]["version"]


# The wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree."""
    return _build(HOUSE, tmp_path_factory.mktemp("dist"), "--wheel")


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel alone, and sees the dependencies of the one that runs the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, symlinks=True)
    command = ["pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(folder), str(wheel)]
    subprocess.run([sys.executable, "-m", "uv", *command], check=True)
    # A path in a .pth is put on sys.path, but the .pth files in it are not read: the editable install is not seen.
    (_site_packages(folder) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder with a project, and with modules of the user's own that are called like packages of dreamloom."""
    (tmp_path / "train.py").write_text("raise SystemExit('train.py of the user was imported')\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "__init__.py").write_text("raise SystemExit('base of the user was imported')\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a red circle.png").write_bytes(_PNG)
    return tmp_path


@pytest.mark.slow
def test_the_wheel_holds_one_package_and_all_files_of_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES, "dreamloom/*.*"],
        cwd=HOUSE,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert names == {file if file.startswith("dreamloom/") else f"dreamloom/{file}" for file in tracked}
    assert "dreamloom/py.typed" in names


@pytest.mark.slow
def test_a_wheel_from_the_source_distribution_is_the_same(wheel: Path, tmp_path: Path) -> None:
    source = _build(HOUSE, tmp_path, "--sdist")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    again = _build(tmp_path / source.name.removesuffix(".tar.gz"), tmp_path, "--wheel")
    assert again.read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_an_installed_dreamloom_works_beside_modules_of_the_same_names(installed: Path, crowded: Path) -> None:
    models = _site_packages(installed) / "dreamloom" / "demo" / "models"
    (crowded / "project.yaml").write_text(
        "name: crowded\nworkspace: work\nsources: {own: {kind: folder, role: training, path: images}}\n"
        f"train: {{base: {models / 'stable-diffusion'}, resolution: 64}}\n"
    )
    program = [installed / "bin" / "dreamloom"]
    assert _output(crowded, *program, "--version").strip() == VERSION
    assert "Fine-tune" in _output(crowded, *program, "--help")
    assert "ingest own" in _output(crowded, *program, "plan")
    code = "import dreamloom.flows.project.project, dreamloom.train.config as config; print(config.__file__)"
    module = Path(_output(crowded, installed / "bin" / "python", "-c", code).strip())
    assert module.is_relative_to(_site_packages(installed))


def _build(source: Path, target: Path, kind: str) -> Path:
    """Builds without downloads: hatchling is a development dependency."""
    command = ["build", "--quiet", "--offline", "--no-build-isolation", kind, "--python", sys.executable]
    subprocess.run([sys.executable, "-m", "uv", *command, "--out-dir", target, source], check=True)
    return next(target.glob("*.whl" if kind == "--wheel" else "*.tar.gz"))


def _site_packages(environment: Path) -> Path:
    return next((environment / "lib").glob("python*")) / "site-packages"


def _output(folder: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0000003010100c9fe92"
    "ef0000000049454e44ae426082"
)


# The one import name


_NAMES = "|".join(PACKAGES)
_CODE = re.compile(
    rf"(?:^|[\n;\"'`])\s*(?:from\s+(?:{_NAMES})(?:\.\w+)*\s+import\s|import\s+(?:{_NAMES})(?:[.;,\n\"'`]|\s+as\s|$))"
    rf"|-m\s+(?:{_NAMES})\b(?!/)"
)
"""An import, or a module to run, in a piece of code or a command line."""


def _python_files() -> list[Path]:
    folders = (*PACKAGES, "dreamloom", "tests", "bench", "examples")
    return sorted({path for folder in folders for path in (HOUSE / folder).rglob("*.py")} - {Path(__file__)})


def _bare_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The line and the name of each use of a package without `dreamloom.` before it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if _is_bare(name.name))
        elif isinstance(node, ast.ImportFrom) and not node.level and _is_bare(node.module or ""):
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _CODE.search(node.value) or _is_module(node.value):
                yield node.lineno, node.value
        elif isinstance(node, ast.List | ast.Tuple):
            values = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
            yield from (
                (node.lineno, f"-m {module}")
                for flag, module in pairwise(values)
                if flag == "-m" and isinstance(module, str) and _is_bare(module)
            )


def _is_bare(module: str) -> bool:
    return module.split(".")[0] in PACKAGES


def _is_module(text: str) -> bool:
    """Whether a text such as "train.loop.loop.train" or "flows.api:run" names something in a module of ours."""
    words = text.replace(":", ".").split(".")
    if len(words) < 2 or words[0] not in PACKAGES or not all(word.isidentifier() for word in words):
        return False
    first = HOUSE / words[0] / words[1]
    return first.is_dir() or (first.with_suffix(".py").is_file() and len(words) > 2)


def test_packages_are_imported_by_their_full_name() -> None:
    found = {
        path: names for path in _python_files() if (names := list(_bare_names(ast.parse(path.read_text("utf-8")))))
    }
    assert not found


def test_pages_and_scripts_use_the_full_name() -> None:
    files = [HOUSE / name for name in ("README.md", "Makefile", ".ci/run")]
    files += (HOUSE / "docs").glob("*.md")
    assert not [path for path in files if _CODE.search(path.read_text("utf-8"))]


@pytest.mark.parametrize(
    "code",
    [
        "import train",
        "import os, scrape.web",
        "from base import files",
        "from train.loop.loop import train",
        'run("import sys; from scrape.web import crawler")',
        'run([python, "-m", "demo.site"])',
        'run("python -m demo.site")',
        'monkeypatch.setattr("train.loop.loop.train", None)',
        'ENTRY = "flows.commands.cli:main"',
    ],
)
def test_a_bare_name_is_found(code: str) -> None:
    assert list(_bare_names(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "from dreamloom.train import config",
        "from . import train",
        'run("from dreamloom.scrape.web import crawler")',
        'key = "train.base"',
        'title = "train people"',
        'text = "images come from train and demo"',
    ],
)
def test_other_text_is_left_alone(code: str) -> None:
    assert not list(_bare_names(ast.parse(code)))
