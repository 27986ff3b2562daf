"""`dreamloom completion`: what a shell needs to complete commands, flags and their values with the tab key."""

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script by which a shell completes commands, flags and values. Writes nothing.

    Parameters
    ----------
    shell
        Which shell. bash: put it into ~/.local/share/bash-completion/completions/dreamloom. zsh: into a file
        _cyclopts_dreamloom in a folder of $fpath. fish: into ~/.config/fish/completions/dreamloom.fish.
    """
    from dreamloom.flows.commands.cli import app

    print(app.generate_completion(shell=shell))
