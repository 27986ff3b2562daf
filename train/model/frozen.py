"""Finds the parameters that `frozen` leaves untrained; apart from the model, as a plan does it without torch."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from dreamloom.base.errors import UserError
from dreamloom.train.model.lora_layers import ADAPTER_NAME, divide_name

_COMPONENT = re.compile(r"unet|transformer|text_encoder(_\d)?")


def find_frozen(patterns: Sequence[str], names: Iterable[str]) -> set[str]:
    """Returns the names that match a pattern.

    Args:
        patterns: as fnmatch has them, of the names that diffusers' files have: unet.down_blocks.0.*.
        names: of all parameters that would be trained, as they are called in memory or in files.

    Raises:
        UserError: a pattern matches no name.
    """
    spellings = {name: _spellings(name) for name in names}
    frozen: set[str] = set()
    for pattern in patterns:
        matching = {name for name, known in spellings.items() if any(fnmatchcase(each, pattern) for each in known)}
        if not matching:
            raise UserError(_explain_no_match(pattern, spellings))
        frozen |= matching
    return frozen


def _spellings(name: str) -> list[str]:
    """Returns the names by which a pattern may know a parameter; the first is that of diffusers' and peft's files.

    transformers 5 calls a text encoder's layers text_encoder.encoder.…, its files text_encoder.text_model.encoder.…
    An adapter is also known by the weight of its layer.
    """
    part, _, inside = name.partition(".")
    prefixes = ("text_model.", "") if part.startswith("text_encoder") else ("",)
    plain = inside.removeprefix("text_model.")
    adapter = divide_name(plain)
    names = [plain.replace(f".{ADAPTER_NAME}", ""), f"{adapter[0]}.weight"] if adapter else [plain]
    return [f"{part}.{prefix}{each}" for each in names for prefix in prefixes] + [name]


def _explain_no_match(pattern: str, spellings: dict[str, list[str]]) -> str:
    """Says which names there are that are like a pattern, in the part that it is about."""
    part = pattern.partition(".")[0]
    trained = {name.partition(".")[0] for name in spellings}
    if _COMPONENT.fullmatch(part) and part not in trained:
        return f"frozen: {pattern} matches nothing that is trained: {part} is not trained at all; remove the pattern."
    names = [files for name, (files, *_) in spellings.items() if part not in trained or name.startswith(f"{part}.")]
    blocks = list(dict.fromkeys(".".join(name.split(".")[:depth]) for depth in (3, 5, 99) for name in names))
    near = get_close_matches(pattern.rstrip("*."), blocks, n=3, cutoff=0.3) or names[:3]
    return f"frozen: {pattern} matches no parameter that is trained; near ones are {', '.join(near)}."
