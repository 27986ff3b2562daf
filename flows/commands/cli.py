"""The command line: its commands, and how they end.

Commands are registered by import path, so that --help imports none of them. Exit codes: 0, success; 1, a stage failed;
2, the command or the project is wrong; 130, stopped by Ctrl-C; 143, by SIGTERM: an unfinished chain is never 0.
"""

import gc
import inspect
import logging
import os
import select
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, TextIO, get_args

from cyclopts import (
    App,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    Token,
    UnknownOptionError,
    UnusedCliTokensError,
)
from cyclopts.argument import ArgumentCollection

from dreamloom.base.errors import StageFailed, UserError, error_line, leaves
from dreamloom.base.stop import Terminated, Unfinished, abandoned, caught, stop_all
from dreamloom.base.text import printable
from dreamloom.flows.terminal.help_pages import HelpPage
from dreamloom.flows.terminal.logs import log_to_terminal

CHAIN = Group.create_ordered("The whole chain")
STAGES = Group.create_ordered("Single stages")
DECIDE = Group.create_ordered("Single images")
FOLDERS = Group.create_ordered("Folders of images")
LOOK = Group.create_ordered("Results")


def _read_as_yaml(_: App, __: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Gives flags two meanings that values have in project.yaml.

    null is no value, where a field may have none. And the values that are given for one key are one list: of
    --templates.faces A --templates.faces B, cyclopts keeps B.
    """
    for argument in arguments:
        if type(None) in get_args(argument.hint):
            tokens = argument.tokens
            argument.tokens = [
                token.evolve(implicit_value=None) if token.value == "null" else token for token in tokens
            ]
        lists: dict[tuple[str, ...], list[Token]] = {}
        for token in argument.tokens:
            if token.keys and argument.token_count(token.keys)[1]:
                lists.setdefault(token.keys, []).append(token)
        if lists:
            argument.tokens = [
                tokens[0].evolve(implicit_value=[token.value for token in tokens]) for tokens in lists.values()
            ]


def _version() -> str:
    """The version of the installed distribution."""
    import dreamloom

    return dreamloom.__version__


app = App(
    name="dreamloom",
    version=_version,
    help_formatter=HelpPage(),
    config=_read_as_yaml,
    help="Fine-tune Stable Diffusion on your own images, and rehearse with real ones what the model should keep.",
    suppress_keyboard_interrupt=False,
    help_epilogue="dreamloom COMMAND --help shows the flags of a command.",
)
app["--help"].group = app["--version"].group = Group("Other", sort_key=99)

_COMMANDS = {
    CHAIN: {
        "init": ("dreamloom.flows.commands.init:init", "Write a project.yaml with comments for a folder of images."),
        "run": ("dreamloom.flows.commands.project:run", "Make what project.yaml asks for and is not there yet."),
        "plan": (
            "dreamloom.flows.commands.project:plan",
            "Show what run would do: images, steps, sizes, time.",
        ),
        "up": (
            "dreamloom.flows.commands.up:up",
            "Start a Prefect server and a worker for a project, with its schedule.",
        ),
        "status": (
            "dreamloom.flows.commands.status:status",
            "Show what of a project is done, stale, running, and when it runs.",
        ),
        "down": ("dreamloom.flows.commands.up:down", "Stop what `up` started."),
        "demo": ("dreamloom.demo.run:demo", "Run the chain on a small world of drawn scenes, with tiny models."),
    },
    STAGES: {
        "filter": ("dreamloom.flows.commands.stages:filter_", "Choose candidates from a LAION index."),
        "ingest": ("dreamloom.flows.commands.ingest:app", "Bring in a folder of images, or a dataset such as COCO."),
        "scrape": ("dreamloom.flows.commands.stages:scrape", "Download the candidates' images."),
        "score": (
            "dreamloom.flows.commands.stages:score",
            "Score images with CLIP: aesthetic score, similarity, hash.",
        ),
        "choose": ("dreamloom.flows.commands.stages:choose", "Choose images by thresholds, licences and duplicates."),
        "caption": ("dreamloom.flows.commands.captions:app", "Caption images with BLIP; convert or edit captions."),
        "balance": ("dreamloom.flows.commands.stages:balance", "Assemble the training folder with ground truth."),
        "dreambooth": ("dreamloom.flows.commands.models:dreambooth", "Make a training folder of subjects and classes."),
        "train": ("dreamloom.flows.commands.models:train", "Fine-tune a Stable Diffusion model on a training folder."),
        "continue": ("dreamloom.flows.commands.models:continue_", "Train a finished run on: more steps or epochs."),
        "tune": ("dreamloom.flows.commands.tune:tune", "Find the least ground truth that holds the limits."),
        "evaluate": ("dreamloom.flows.commands.models:evaluate", "Measure what a model learned and what it forgot."),
        "audit": ("dreamloom.flows.commands.models:audit", "Say what became of each concept, in any fine-tuned model."),
        "export": ("dreamloom.flows.commands.models:export", "Write a trained model in the formats of other programs."),
    },
    DECIDE: {
        "drop": ("dreamloom.flows.commands.decisions:drop", "Leave images out."),
        "keep": ("dreamloom.flows.commands.decisions:keep", "Keep images, whatever the rules of choose say."),
        "recaption": ("dreamloom.flows.commands.decisions:recaption", "Give images another caption."),
        "crop": ("dreamloom.flows.commands.decisions:crop", "Show a part of images, or forbid to mirror them."),
        "rate": ("dreamloom.flows.commands.decisions:rate", "Show images more or less often, or weigh their loss."),
        "undo": ("dreamloom.flows.commands.decisions:undo", "Take decisions about images back."),
        "adopt": ("dreamloom.flows.commands.adopt:adopt", "Make decisions of what you changed by hand in dataset/."),
        "decisions": ("dreamloom.flows.commands.decision_tables:app", "List, export or import decisions."),
    },
    FOLDERS: {
        "compress": (
            "dreamloom.flows.commands.compress:compress",
            "Compress a folder of images into a new one, with its captions.",
        ),
    },
    LOOK: {
        "show": (
            "dreamloom.flows.commands.project:show",
            "Show a collection, workspace or training folder.",
        ),
        "collection": ("dreamloom.flows.commands.collections:app", "List, copy, verify or remove collections."),
        "runs": ("dreamloom.flows.commands.runs:runs", "List training runs, and what each changed."),
        "compare": ("dreamloom.flows.commands.runs:compare", "Compare two runs: config, images, results, samples."),
        "clean": ("dreamloom.flows.commands.clean:clean", "Remove what nothing in a workspace hangs on any more."),
        "prune": ("dreamloom.flows.commands.runs:prune", "Free the disk of what finished runs no longer need."),
        "sample": ("dreamloom.flows.commands.models:sample", "Draw prompts with a trained model, beside its base."),
        "doctor": ("dreamloom.flows.commands.doctor:doctor", "Check this machine, and say how to mend what is amiss."),
        "completion": (
            "dreamloom.flows.commands.completion:completion",
            "Print what a shell needs to complete commands.",
        ),
    },
}
for _group, _commands in _COMMANDS.items():
    for _order, (_name, (_path, _help)) in enumerate(_commands.items()):
        if _path.endswith(":app"):  # an App of its own brings its own page
            app.command(_path, name=_name, help=_help, group=_group, sort_key=_order)
        else:
            _page = HelpPage(_path)
            app.command(_path, name=_name, help=_help, group=_group, sort_key=_order, help_formatter=_page)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    verbose: Annotated[
        bool, Parameter(negative="", help="Show log messages, and the traceback of an error.", group="Other")
    ] = False,
) -> int:
    return run(list(tokens), verbose)


def main() -> None:
    """Runs the console script."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app.meta(result_action="return_value")
        _flush_stdout()
    except KeyboardInterrupt as error:  # before or after the command's own
        code = _stopped(error, verbose=False)
    if abandoned.is_set():
        sys.stderr.flush()
        os._exit(code)
    if not {"duckdb", "triton"} & sys.modules.keys():  # which tell of what is left as leaked
        gc.freeze()  # what is left goes with the process
    sys.exit(code)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _flush_stdout() -> bool:
    """Writes what is left to stdout; where nobody reads it any more, as behind `| head`, throws it away.

    Returns:
        Whether somebody reads it.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return not _is_left(sys.stdout)


def _is_left(stream: TextIO) -> bool:
    """Whether the reader of a pipe is gone; without a buffer (PYTHONUNBUFFERED), a flush does not tell."""
    asked = select.poll()
    try:
        asked.register(stream.fileno(), 0)  # errors are told in any case
    except (OSError, ValueError):  # a stream of a test or a notebook has no descriptor
        return False
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in asked.poll(0))


def run(tokens: list[str], verbose: bool = False) -> int:
    """Runs one command line, and prints its error if there is one.

    Returns:
        The exit code.
    """
    # OpenMP's threads spin while they wait by default: with one per core, another program's load made training on a
    # CPU 5 to 10 times slower than with sleeping threads. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not verbose:  # the messages of these libraries on loading a model are for developers
        for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
            os.environ.setdefault(name, "error")
    logging.getLogger("huggingface_hub").propagate = False  # else shown twice, as open_clip gives the root a handler
    try:
        with log_to_terminal(verbose):
            command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
            if not gc.isenabled():  # by dreamloom/__main__.py, until here
                gc.freeze()
                gc.enable()
            if any(":/" in token for token in tokens):
                from dreamloom.flows.project.paths import refuse_addresses  # imports pydantic

                refuse_addresses(command, bound.arguments)
            return int(command(*bound.args, **bound.kwargs) or 0)
    except CycloptsError as error:
        return _end(2, _wrong_flags(error), verbose)
    except UserError as error:
        return _end(2, str(error), verbose)
    except ExceptionGroup as group:
        errors = leaves(group)
        code = 2 if all(isinstance(error, UserError) for error in errors) else 1
        return _end(code, "\n".join(map(error_line, errors)), verbose)
    except (StageFailed, OSError) as error:
        if isinstance(error, BrokenPipeError) and not _flush_stdout():
            return 1  # whoever read stdout, such as head, has seen enough
        return _end(1, error_line(error), verbose)
    except Unfinished:
        return 128 + (caught[-1] if caught else signal.SIGTERM)  # another process of the run caught it
    except KeyboardInterrupt as error:
        return _stopped(error, verbose)


def _end(code: int, message: str, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print("\n".join(map(printable, message.splitlines())), file=sys.stderr)
    return code


def _wrong_flags(error: CycloptsError) -> str:
    hint = getattr(error.argument, "hint", None)
    if isinstance(error.__cause__, ValueError) and isinstance(hint, type):
        from pydantic import BaseModel, ValidationError

        from dreamloom.flows.project.config_errors import error_lines, flag_name

        if isinstance(error.__cause__, ValidationError) and issubclass(hint, BaseModel):
            return "\n".join(error_lines(error.__cause__, hint, flag_name))
    if isinstance(error, UnknownOptionError) and (renamed := _renamed_flag(error)):
        return renamed
    text = " ".join(str(error).split())
    if isinstance(error, MissingArgumentError) and not error.keyword and "Did you mean" not in text:
        return _missing(error) or text
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"{' '.join(error.unused_tokens)}: is more than the command takes; quote a path that has spaces."
    return text


def _missing(error: MissingArgumentError) -> str | None:
    argument = error.argument
    if argument is None or argument.tokens:
        return None
    flag = argument.field_info.kind is inspect.Parameter.KEYWORD_ONLY
    name = argument.name if flag else argument.name.removeprefix("--").upper()
    command = " ".join(error.command_chain or ())
    return f"{name} is missing; see dreamloom {command} --help."


def _renamed_flag(error: UnknownOptionError) -> str | None:
    from pydantic import BaseModel

    from dreamloom.flows.project.renamed import current_flag, related_key

    flag = (error.token.keyword or error.token.value).split("=")[0]
    configs = {
        "".join(f"{key}." for key in argument.keys): argument.hint
        for argument in error.argument_collection
        if isinstance(argument.hint, type) and issubclass(argument.hint, BaseModel)
    }
    name = current_flag(flag, configs)
    if name:
        return f"{flag} is called {name} now."
    key = flag.removeprefix("--").replace("-", "_")
    related = next((found for model in configs.values() if (found := related_key(key, model))), None)
    return f"There is no {flag}; did you mean --{related.replace('_', '-')}?" if related else None


def _stopped(error: KeyboardInterrupt, verbose: bool) -> int:
    """Ends the process after Ctrl-C or SIGTERM.

    Requests under way may end. The next run discards whatever else is half done, so threads need not be waited for.
    """
    code = 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
    stop_all(5.0)
    _end(code, "Stopped. What is finished stays; run the same command to continue.", verbose)
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
