"""`import dreamloom as dl`: quick, complete, known to type checkers; and its page and its notebook run."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw

import dreamloom as dl
from dreamloom.base.progress import silent
from dreamloom.base.stage import StageConfig
from dreamloom.scrape.datasets import all_kinds

HOUSE = Path(__file__).parents[1]
NOTEBOOKS = sorted((HOUSE / "examples").rglob("*.ipynb"))
HOSTILE = "<img src=x onerror=alert(1)>"


# The names


def test_importing_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'pyarrow', 'pydantic', 'PIL', 'torch', 'prefect', 'dreamloom.base'}"
    assert not _python(f"import sys, dreamloom as dl; print(*{heavy} & sys.modules.keys())", HOUSE).strip()


def test_every_name_is_there_and_said_to_type_checkers() -> None:
    stub = ast.parse((HOUSE / "dreamloom" / "__init__.pyi").read_text("utf-8"))
    said = next(ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(said) == sorted(dl.__all__)
    assert all(getattr(dl, name) is not None for name in dl.__all__)
    assert set(dl.__all__) <= set(dir(dl))


def test_no_name_is_that_of_a_package_or_of_python() -> None:
    packages = {path.name for path in (HOUSE / "dreamloom").iterdir()}
    builtins = dir(__builtins__) if not isinstance(__builtins__, dict) else list(__builtins__)
    assert not set(dl.__all__) & (packages | set(builtins))


def test_what_is_not_there_is_an_attribute_error_that_helps() -> None:
    code = "import dreamloom as dl\ntry: dl.train\nexcept AttributeError as error: print(error)"
    assert _python(code, HOUSE).strip() == "dreamloom has no train; it has train_model"
    with pytest.raises(AttributeError, match=r"dreamloom has no nothing; see dir\(dreamloom\)"):
        dl.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_every_kind_of_source_has_its_config() -> None:
    configs = {kind.config for kind in all_kinds()}
    assert configs <= {getattr(dl, name) for name in dl.__all__ if name.endswith("Config")}


def test_every_section_of_a_project_has_its_config() -> None:
    sections = {type(field.default) for field in dl.Project.model_fields.values()} - {type(None)}
    configs = {section for section in sections if isinstance(section, type) and issubclass(section, StageConfig)}
    assert configs <= {getattr(dl, name) for name in dl.__all__ if name.endswith("Config")}


def test_the_version_is_the_distribution_s() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", dl.__version__)


# What a notebook shows


def test_an_evaluation_shows_learned_and_forgotten_with_their_errors() -> None:
    measure = dl.Measure(0.123, 0.008, 2.0, 1.754, 40)
    page = dl.Evaluation(measure, None, {}, {})._repr_html_()
    assert "12.3 ± 0.8 %" in page and "learned" in page and "forgotten" not in page
    assert "nothing was measured" in dl.Evaluation(None, None, {}, {})._repr_html_()


def test_what_is_no_source_s_config_is_said(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="TrainConfig is the config of no kind of source"):
        dl.ingest(dl.Collection(tmp_path), dl.TrainConfig())


def test_progress_is_shown_and_handed_on() -> None:
    with dl.progress("score") as progress:
        progress(1, 2, "a note")
    assert callable(silent)


# A project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder as docs/python.md supposes it: some images, a model, and a project.yaml of few steps."""
    (tmp_path / "images").mkdir()
    for number, colour in enumerate(["red", "green", "blue", "orange", "purple", "black", "pink", "brown"]):
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).ellipse((8 + number, 8, 48 + number, 48), fill=colour)
        image.save(tmp_path / "images" / f"a {colour} circle on white_({number}).png")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "stable-diffusion").symlink_to(HOUSE / "demo" / "models" / "stable-diffusion")
    few = {"max_train_steps": 2, "batch_size": 2, "sample_every_n_steps": 0, "sample_steps": 1, "eval_timesteps": 1}
    content = {
        "name": f"circles {HOSTILE}",
        "workspace": "work",
        "sources": {"own": {"kind": "folder", "role": "training", "path": "images"}},
        "balance": {"held_out": 0.3},
        "train": {"base": "models/stable-diffusion", "resolution": 64, **few},
    }
    (tmp_path / "project.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def test_a_plan_says_what_would_be_made(project: Path) -> None:
    plan = dl.plan(project)
    assert not plan.is_done and plan.training is None
    page = plan._repr_html_()
    assert "ingest own" in page and HOSTILE not in page
    assert not (project / "work").exists()


@pytest.mark.slow
def test_a_run_makes_a_project_and_shows_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = dl.run(str(project / "project.yaml"))
    assert result.finished and result.model.is_dir() and result.report.is_file()
    assert "export" in capsys.readouterr().out
    assert result.evaluation is not None and result.evaluation.learned is not None
    assert result.evaluation == dl.read_evaluation(result.run_folder)
    page = result._repr_html_()
    assert str(result.evaluation.learned) in page and HOSTILE not in page
    assert not any(outcome.changed for outcome in dl.run(result.project).outcomes)
    plan = dl.plan(result.project)
    assert plan.is_done and "2 steps" in plan._repr_html_()


# The page and the notebook


@pytest.mark.slow
def test_the_blocks_of_the_page_run(project: Path) -> None:
    page = (HOUSE / "docs" / "python.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) > 5
    _python("\n".join(blocks), project)
    assert (project / "model" / "model_index.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(HOUSE))
    content = nbformat.read(notebook, as_version=4)
    client = NotebookClient(content, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [output for cell in content.cells for output in cell.get("outputs", []) if output.output_type != "stream"]
    assert any("text/html" in output.data for output in shown)


def test_notebooks_are_kept_without_what_they_printed() -> None:
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code), notebook


def _python(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout
