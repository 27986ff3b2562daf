"""The command line: what it says of itself, and how its runs end."""

import importlib.metadata
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dreamloom.base.errors import StageFailed, UserError
from dreamloom.base.progress import Progress
from dreamloom.flows.chain.steps import Outcome, Step
from dreamloom.flows.commands import cli
from dreamloom.flows.commands.step_command import run_step
from dreamloom.scrape.datasets import all_kinds
from dreamloom.train.loop.interrupt import catch_signals

COMMANDS = [
    "up",
    "clean",
    "status",
    "down",
    "filter",
    "ingest",
    "scrape",
    "score",
    "choose",
    "caption",
    "balance",
    "train",
    "evaluate",
    "audit",
    "export",
    "run",
    "plan",
    "show",
    "demo",
    "dreambooth",
    "init",
    "completion",
    "doctor",
    "runs",
    "collection",
    "compare",
    "sample",
    "drop",
    "keep",
    "recaption",
    "crop",
    "rate",
    "undo",
    "adopt",
    "decisions",
    "compress",
    "continue",
    "prune",
    "tune",
]
CONFIGURED = [
    ["filter"],
    ["scrape"],
    ["score"],
    ["choose"],
    ["caption"],
    ["balance"],
    ["train"],
    ["evaluate"],
    ["audit"],
    ["tune"],
    ["export"],
    ["sample"],
]
MODEL = str(Path(__file__).parents[3] / "demo" / "models" / "stable-diffusion")
RUN = str(Path(__file__).parents[2] / "fixtures" / "release-0.2" / "run")
CONFIGURED += [["ingest", kind.name] for kind in all_kinds() if kind.stage == "ingest"]


def said(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.run(tokens)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_names_every_command_and_imports_none() -> None:
    ours = "'dreamloom.flows.commands.project', 'dreamloom.train.config'"
    heavy = f"{{'torch', 'prefect', 'pyarrow', 'pydantic', 'numpy', {ours}}}"
    script = (
        "import sys; from dreamloom.flows.commands.cli import run; run(['--help']); "
        f"print('loaded:', *{heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *text, loaded = done.stdout.splitlines()
    listed = [line.split()[1] for line in text if line.startswith("│ ") and line[2] != " "]
    assert [name for name in listed if not name.startswith("-")] != []
    assert {name for name in listed if not name.startswith("-")} == set(COMMANDS)
    assert loaded == "loaded:"


def test_garbage_is_collected_again_once_a_command_begins() -> None:
    script = (
        "import gc; from dreamloom import __main__; from dreamloom.flows.commands import cli; "
        "cli.app.command(lambda: print(gc.isenabled()), name='told'); __main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", script, "told"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_a_command_ends_without_a_word_of_its_libraries() -> None:
    """Triton counts what is left of its objects when Python ends, and would list it."""
    pytest.importorskip("triton")
    script = "import triton._C.libtriton, sys; sys.argv[1:] = ['--version']; import dreamloom.__main__ as m; m.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(["--version"], capsys) == (0, importlib.metadata.version("dreamloom") + "\n", "")


def test_the_package_can_be_run_as_a_module() -> None:
    command = [sys.executable, "-m", "dreamloom", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: dreamloom COMMAND")


@pytest.mark.parametrize("command", CONFIGURED, ids=" ".join)
def test_every_field_of_a_config_is_a_flag_that_says_what_it_does(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said([*command, "--help"], capsys)
    assert code == 0
    function = cli.app[command[0]] if len(command) == 1 else cli.app[command[0]][command[1]]
    config = function.default_command.__annotations__["config"].__origin__
    for name, field in config.model_fields.items():
        assert field.description, f"{config.__name__}.{name} does not say what it is"
        assert f"--{name.replace('_', '-')}" in out


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (["filter", "x"], "--index is missing; see dreamloom filter --help."),
        (["train"], "FOLDER is missing; see dreamloom train --help."),
        (["caption", "convert"], "FOLDER is missing; see dreamloom caption convert --help."),
        (["train", "a", "b", "--epochs"], 'Command "train" parameter --epochs requires an argument.'),
        (["filter", "x", "--index", "a", "--min-sde", "3"], "Unknown option: --min-sde. Did you mean --min-side?"),
        (
            ["filter", "x", "--index", "a", "--min-side", "0"],
            "--min-side: should be greater than or equal to 1, not '0'",
        ),
        (["filter", "x", "--index", "a", "--min-side", "q"], "--min-side: should be a valid integer"),
        (
            ["filter", "x", "--index", "nowhere"],
            "No parquet file is at nowhere; `index` takes files, folders and globs.",
        ),
        (["train", "a", "b", "--resolution", "65"], "resolution 65 is not a multiple of bucket_reso_steps 64"),
        (["train", "a", "b", "--base", "no model"], "There is no model no model: it is neither a folder nor a hub id"),
        (["balance", "w", "--training", "a", "--share.b", "2"], "--multiply.b or --share.b names no collection"),
        (["caption", "nowhere", "--model", "."], "The captioning model . has no config.json of a model;"),
        (["train", "a", "b", "--batch", "4"], "--batch is called --batch-size now."),
        (["train", "a", "b", "--keep=4"], "--keep is called --checkpoints-total-limit now."),
        (["caption", "a", "--keep", "human"], "--keep is called --keep-kinds now."),
        (["caption", "a", "--clip.weights", "openai"], "--clip.weights is called --clip.pretrained now."),
        (["export", "a", "b", "--no-average"], "--no-average is called --no-use-ema now."),
        (["ingest", "huggingface", "a", "--path", "b", "--text", "c"], "--text is called --caption-column now."),
        (["ingest", "webdataset", "a", "--path", "b", "--captions", "alt"], "--captions is called --caption-kind now."),
        (
            ["ingest", "coco", "a", "--annotations", "b", "--caption", "all"],
            "--caption is called --caption-choice now.",
        ),
        (["ingest", "folder", "a", "--path", "b", "--template", "c"], "--template is called --caption now."),
        (["dreambooth", "a", "b", "--batch", "4"], "--batch is called --sample-batch-size now."),
        (["show", "a", "--picture", "b"], "--picture is called --image now."),
        (["train", "a", "b", "--no-flip"], "Unknown option: --no-flip."),
        (["ingest", "folder", __file__, "--path", "."], f"{__file__} is a file; name a folder."),
        (["plan", "my", "project.yaml"], "project.yaml: is more than the command takes; quote a path that has spaces."),
        (["choose", "--training"], "There is no collection to choose from; name one that is to be learned."),
        (["fliter"], 'Unknown command "fliter". Did you mean "filter"?'),
        (["export", MODEL, "x"], f"{MODEL} is neither a run nor a checkpoint of one, which is what export takes; name"),
        (["show", "nowhere"], "nowhere is not a folder"),
        (["show", RUN], f"{RUN} is a training run; look at samples.png in it, or show its workspace."),
        (["run", "nowhere.yaml"], "nowhere.yaml can't be read (No such file or directory); name a project.yaml."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_t_be_done_is_one_sentence_and_exit_code_2(
    tokens: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = said(tokens, capsys)
    assert code == 2
    assert err.startswith(sentence)
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["scrape", "score", "caption"])
def test_a_collection_that_is_not_there_is_not_begun(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sentence = f"{tmp_path / 'nowhere'} is not a folder; name a collection, made by filter or ingest.\n"
    assert said([command, str(tmp_path / "nowhere")], capsys) == (2, "", sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("name a folder."), 2, "name a folder.\n"),
        (StageFailed("too few images came."), 1, "too few images came.\n"),
        (ExceptionGroup("2 parts", [ValueError("bad"), OSError("disk")]), 1, "ValueError: bad\ndisk\n"),
        (ExceptionGroup("2 branches", [UserError("a."), ExceptionGroup("", [UserError("b.")])]), 2, "a.\nb.\n"),
        (OSError(28, "No space left on device", "x"), 1, "[Errno 28] No space left on device: 'x'\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_end_has_a_code_and_a_line(
    error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    cli.app.command(fail, name="fail", show=False)
    try:
        assert said(["fail"], capsys) == (code, "", line)
        assert cli.run(["fail"], verbose=True) == code
        assert "Traceback" in capsys.readouterr().err
    finally:
        del cli.app["fail"]


def test_ctrl_c_ends_threads_too_and_says_how_to_go_on() -> None:
    script = """
import signal, sys, threading, time
from dreamloom.flows.commands import cli
from dreamloom.scrape.datasets import all_kinds
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told its background jobs to ignore it
def wait():
    threading.Thread(target=time.sleep, args=(600,)).start()
    print("waiting", flush=True)
    time.sleep(600)
cli.app.command(wait, name="wait")
sys.exit(cli.run(["wait"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "Stopped. What is finished stays; run the same command to continue.\n"


def test_ctrl_c_while_the_command_line_is_imported_ends_it_silently() -> None:
    script = """
import os, signal, sys
import dreamloom.__main__
class CtrlC:
    def find_spec(self, name, *_):
        if name == "dreamloom.flows.commands.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
dreamloom.__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", ""), "130, as shells have it"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_work_that_was_stopped_and_saved_is_not_done(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    class Training(Step):
        stage = "train"

        def stale_parts(self) -> list[str]:
            return ["all"]

        def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
            with catch_signals() as stop:
                signal.raise_signal(number)
            return Outcome("stopped and saved", changed=True, finished=not stop.requested)

    def stopped() -> None:
        run_step(Training())

    cli.app.command(stopped, name="stopped")
    try:
        assert cli.run(["stopped"]) == code
    finally:
        del cli.app["stopped"]
    assert capsys.readouterr().out == "stopped and saved\n"


def test_texts_that_are_given_for_one_key_are_all_taken() -> None:
    texts = ["--templates.faces", "a man", "--templates.faces", "a woman", "--templates.my dog", "a dog"]
    _, bound, *_ = cli.app.parse_args(["caption", "faces", *texts], exit_on_error=False, print_error=False)
    assert bound.arguments["config"].templates == {"faces": ("a man", "a woman"), "my dog": ("a dog",)}


def test_null_is_no_value() -> None:
    given = ["--max-aspect", "null", "--text-column", "null", "--limit", "5"]
    _, bound, *_ = cli.app.parse_args(["filter", "x", "--index", "a", *given], exit_on_error=False, print_error=False)
    config = bound.arguments["config"]
    assert (config.max_aspect, config.text_column, config.limit) == (None, None, 5)
    assert {"max_aspect", "text_column"} <= config.model_fields_set


TALK = """
import sys
from dreamloom.flows.commands import cli
cli.app.command(lambda: print("a line"), name="talk")
sys.exit(cli.run(["talk"]))
"""


@pytest.mark.parametrize(
    "words", [("-m", "dreamloom", "train", "--help"), ("-u", "-c", TALK)], ids=["help", "unbuffered"]
)
def test_a_reader_that_has_seen_enough_is_no_error(words: Sequence[str]) -> None:
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize(
    ("flag", "meant"), [("--lr", "--learning-rate"), ("--train-batch-size", "--batch-size"), ("--rank", "--lora-rank")]
)
def test_flags_of_other_trainers_are_answered_with_ours(
    flag: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(["train", "images", "run", flag, "1"], capsys) == (
        2,
        "",
        f"There is no {flag}; did you mean {meant}?\n",
    )


@pytest.mark.parametrize(("pair", "mend"), [("1:1", "1"), ("2:1", "2 or 0.5"), ("3/4", "0.75 or 1.333")])
def test_a_ratio_of_two_numbers_is_told_as_one(pair: str, mend: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(["balance", "work", "--training", "images", "--ratio", pair], capsys)
    assert code == 2
    assert f"for each training image: {mend}, not {pair}" in err


@pytest.mark.parametrize("seed", ["-1", str(2**63)])
def test_the_demo_refuses_a_seed_before_it_makes_anything(
    seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(["demo", "--folder", str(tmp_path / "world"), "--seed", seed], capsys)
    assert (code, not (tmp_path / "world").exists()) == (2, True)
    assert err == f"--seed is a number from 0 to {2**63 - 1}, not {seed}.\n"
