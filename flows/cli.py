"""The command line: which commands there are, and how a run ends.

Commands are registered by import path, so that --help imports none of them. Exit codes: 0, all well; 1, a stage
failed; 2, what was asked for can't be done as it was written; 130, stopped by Ctrl-C.
"""

import importlib.metadata
import logging
import os
import sys
import traceback
from typing import Annotated

from cyclopts import App, CycloptsError, Group, Parameter, Token
from cyclopts.argument import ArgumentCollection

from dreamloom.base.errors import StageFailed, UserError, error_line, leaves
from dreamloom.base.stop import stop_all
from dreamloom.base.text import printable
from dreamloom.flows.help_pages import HelpPage
from dreamloom.flows.logs import log_to_terminal

CHAIN = Group.create_ordered("The whole chain")
STAGES = Group.create_ordered("One stage")
LOOK = Group.create_ordered("Look at what is there")


def _all_of_a_key(_: App, __: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Makes one list of what is given for one key: of --templates.faces A --templates.faces B, cyclopts keeps B."""
    for argument in arguments:
        lists: dict[tuple[str, ...], list[Token]] = {}
        for token in argument.tokens:
            if token.keys and argument.token_count(token.keys)[1]:
                lists.setdefault(token.keys, []).append(token)
        if lists:
            argument.tokens = [
                tokens[0].evolve(implicit_value=[token.value for token in tokens]) for tokens in lists.values()
            ]


def _version() -> str:
    """The installed version."""
    return importlib.metadata.version("dreamloom")


app = App(
    name="dreamloom",
    version=_version,
    help_formatter=HelpPage(),
    config=_all_of_a_key,
    help="Fine-tune Stable Diffusion on your own images, and rehearse with real ones what the model should keep.",
    suppress_keyboard_interrupt=False,
    help_epilogue="Each command tells its flags: dreamloom COMMAND --help",
)
app["--help"].group = app["--version"].group = Group("Also", sort_key=99)

_COMMANDS = {
    CHAIN: {
        "run": ("dreamloom.flows.commands:run", "Make everything that project.yaml says and that is not there yet."),
        "plan": (
            "dreamloom.flows.commands:plan",
            "Say what run would do: counts, sizes, steps, time. Changes nothing.",
        ),
        "demo": (
            "dreamloom.demo.run:demo",
            "The chain over a small world of its own, from scraping to a fine-tuned model.",
        ),
    },
    STAGES: {
        "filter": ("dreamloom.flows.stage_commands:filter_", "Choose candidates from a LAION index."),
        "ingest": (
            "dreamloom.flows.ingest_commands:app",
            "Bring in a folder of images, or a dataset such as COCO.",
        ),
        "scrape": ("dreamloom.flows.stage_commands:scrape", "Download the candidates' images."),
        "score": (
            "dreamloom.flows.stage_commands:score",
            "Look at each image with CLIP: embedding, aesthetic, likeness.",
        ),
        "choose": (
            "dreamloom.flows.stage_commands:choose",
            "Decide which images go on: duplicates, thresholds, licences.",
        ),
        "caption": (
            "dreamloom.flows.caption_commands:app",
            "Write captions with BLIP; convert or edit those there are.",
        ),
        "balance": (
            "dreamloom.flows.stage_commands:balance",
            "Assemble the training folder, with ground truth at a ratio.",
        ),
        "dreambooth": (
            "dreamloom.flows.stage_commands:dreambooth",
            "Make a training folder of subjects and their classes.",
        ),
        "train": ("dreamloom.flows.stage_commands:train", "Fine-tune a Stable Diffusion model on a training folder."),
        "evaluate": ("dreamloom.flows.stage_commands:evaluate", "Measure what a model learned, and what it forgot."),
        "export": ("dreamloom.flows.stage_commands:export", "Write a trained model as other programs read it."),
    },
    LOOK: {
        "show": (
            "dreamloom.flows.commands:show",
            "A table and a contact sheet of a collection, workspace or training folder.",
        )
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
        bool, Parameter(negative="", help="Show what is logged, and the traceback of an error.", group="Also")
    ] = False,
) -> int:
    return run(list(tokens), verbose)


def main() -> None:
    """The console script."""
    sys.exit(app.meta(result_action="return_value"))


def run(tokens: list[str], verbose: bool = False) -> int:
    """Runs one command line and says what went wrong, if anything did.

    Returns:
        The exit code.
    """
    # OpenMP's threads spin while they wait: with as many as there are cores, another program's load made training on a
    # CPU 5 to 10 times slower than it is where they sleep. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not verbose:  # what these libraries say when they load a model is for their authors
        for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
            os.environ.setdefault(name, "error")
    logging.getLogger("huggingface_hub").propagate = False  # open_clip gives the root a handler: all would come twice
    try:
        with log_to_terminal(verbose):
            return int(app(tokens, exit_on_error=False, print_error=False, result_action="return_value") or 0)
    except CycloptsError as error:
        return _end(2, _wrong_flags(error), verbose)
    except UserError as error:
        return _end(2, str(error), verbose)
    except ExceptionGroup as group:
        errors = leaves(group)
        code = 2 if all(isinstance(error, UserError) for error in errors) else 1
        return _end(code, "\n".join(map(error_line, errors)), verbose)
    except (StageFailed, OSError) as error:
        return _end(1, error_line(error), verbose)
    except KeyboardInterrupt:
        return _stopped(verbose)


def _end(code: int, message: str, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print("\n".join(map(printable, message.splitlines())), file=sys.stderr)
    return code


def _wrong_flags(error: CycloptsError) -> str:
    hint = getattr(error.argument, "hint", None)
    if isinstance(error.__cause__, ValueError) and isinstance(hint, type):
        from pydantic import BaseModel, ValidationError

        from dreamloom.flows.config_errors import error_lines, flag_name

        if isinstance(error.__cause__, ValidationError) and issubclass(hint, BaseModel):
            return "\n".join(error_lines(error.__cause__, hint, flag_name))
    return " ".join(str(error).split())


def _stopped(verbose: bool) -> int:
    """Ends the process after Ctrl-C.

    Requests under way may end. The next run discards whatever else is half done, so threads need not be waited for.
    """
    stop_all(5.0)
    _end(130, "Stopped. All that was finished stays; the same command goes on from there.", verbose)
    sys.stdout.flush()
    os._exit(130)


if __name__ == "__main__":
    main()
