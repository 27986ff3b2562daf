"""How many captions are too long for the text encoders of a model."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from dreamloom.base.files.remembered import remembered
from dreamloom.base.stage import recipe
from dreamloom.base.text import printable
from dreamloom.caption.tokens import LengthSummary, load_t5_tokenizer, load_tokenizer, measure_captions
from dreamloom.flows.report.contents import Captions
from dreamloom.flows.terminal.terminal import Terminal


def caption_lengths(
    read: Callable[[], Captions], model: str | None, captions: str | None = None, t5_length: int = 256
) -> list[LengthSummary]:
    """Counts the captions that are too long, for each text encoder; an empty list where there is no caption yet.

    Args:
        read: reads the captions.
        model: the base model, whose tokenizer counts; None: CLIP's.
        captions: a hash of the captions, by which the counts are remembered; None: they are counted now.
        t5_length: tokens that T5 reads, where the model has one.
    """

    def measure(tokenizer: Any) -> dict[str, Any]:
        with Terminal() as terminal, terminal.watch("count tokens") as progress:
            return asdict(measure_captions(read(), tokenizer, progress))

    found = []
    for tokenizer in filter(None, (load_tokenizer(model), load_t5_tokenizer(model, t5_length))):
        count = partial(measure, tokenizer)
        counts = remembered(recipe("tokens", 1, {}, [captions, tokenizer.digest]), count) if captions else count()
        found.append(LengthSummary(**counts))
    return [each for each in found if each.captions]


def print_lengths(lengths: Sequence[LengthSummary]) -> None:
    """Prints a line for each text encoder."""
    for each in lengths:
        print(printable(str(each)))
