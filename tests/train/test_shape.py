"""How train/ is written: nothing that must be scrolled, nothing in a step that waits for the device or prints."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TRAIN = Path(__file__).parents[2] / "train"
MAX_FUNCTION, MAX_FILE = 80, 350


def module_of(file: Path) -> str:
    """The module inside train, such as loop.trainer."""
    return ".".join(file.relative_to(TRAIN).with_suffix("").parts)


IN_A_STEP = {
    *(module_of(file) for room in ("objectives", "optimizers") for file in (TRAIN / room).glob("*.py")),
    *("loop.trainer", "loop.optimizers", "loop.average", "loop.loss_window", "loop.distributed"),
    *(module_of(file) for file in (TRAIN / "families").glob("*/model.py")),
    *("diffusion.noise", "diffusion.formulas", "diffusion.schedules", "model.model", "model.text", "model.device"),
    *("data.loader", "data.schedule", "data.packing", "data.sampler", "data.crops", "data.captions", "data.text_cache"),
}
WAITS = {"item", "cpu", "numpy", "tolist", "synchronize", "nonzero"}
"""Methods of a tensor for which the host waits until the device has come so far."""

BESIDE_THE_STEP = {
    "data.schedule.BatchSchedule._slot",  # numpy arrays, which no device computes
    "data.schedule.BatchSchedule._epoch_parts",
    "data.sampler.Division.__init__",  # fractions
    "data.schedule.BatchSchedule._split",
    "data.crops.CropPlanner.choose_views",
    "data.captions.CaptionBuilder.build",
    "data.captions.shuffle_tags",
    "model.model.hash_weights",  # before the first step
    "model.model.Model.scale_latents",  # numbers of a config
    "model.model.Model.unscale_latents",
    "data.text_cache._key",  # tokens, which lie on the processor
    "data.text_cache.TextCache._encode",  # before the first step
    "objectives.prior_prediction.PriorPrediction.loss",  # which images count, on the processor
    "objectives.output_preservation.OutputPreservation.loss",
    "loop.loss_window.LossWindow.take",  # the look at the losses itself, every log_every_n_steps steps
}


def functions(tree: ast.AST, name: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """All functions with their full names, methods too; those inside another belong to it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{name}.{node.name}")
        elif isinstance(node, ast.FunctionDef):
            yield f"{name}.{node.name}", node


FILES = sorted(TRAIN.rglob("*.py"))
ALL = [pair for file in FILES for pair in functions(ast.parse(file.read_text(encoding="utf-8")), module_of(file))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: module_of(file))
def test_files_and_functions_are_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION, f"{node.name} must be scrolled"


@pytest.mark.parametrize(("name", "function"), ALL, ids=[name for name, _ in ALL])
def test_nothing_prints(name: str, function: ast.FunctionDef) -> None:
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


IN_STEPS = [(name, function) for name, function in ALL if any(name.startswith(f"{module}.") for module in IN_A_STEP)]


def test_what_is_named_here_exists() -> None:
    assert {module_of(file) for file in FILES} >= IN_A_STEP
    assert {name for name, _ in ALL} >= BESIDE_THE_STEP


@pytest.mark.parametrize(("name", "function"), IN_STEPS, ids=[name for name, _ in IN_STEPS])
def test_nothing_in_a_step_waits_for_the_device(name: str, function: ast.FunctionDef) -> None:
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    waits = {call.attr for call in calls if isinstance(call, ast.Attribute)} & WAITS
    waits |= {call.id for call in calls if isinstance(call, ast.Name)} & {"float"}
    if name in BESIDE_THE_STEP:
        assert waits, f"{name} does not wait any more: take it from the list"
    else:
        assert not waits


def test_the_loop_reads_as_pseudocode() -> None:
    """Its body is nothing but calls of the session and its timetable, one a line, each behind a plain question."""
    (loop,) = [function for name, function in ALL if name == "loop.loop._loop"]
    assert (loop.end_lineno or 0) - loop.lineno <= 20
    called = {ast.unparse(node.func).split(".")[0] for node in ast.walk(loop) if isinstance(node, ast.Call)}
    assert called == {"session", "timetable"}
