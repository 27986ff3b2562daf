"""The vocabulary of an audit: the prompts whose drift is measured, and of which some are drawn."""

from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import DocumentError, read_text
from dreamloom.base.tables.synsets import challenge_synsets, known_synset_names
from dreamloom.base.text import indefinite_article
from dreamloom.train.audit.config import AuditConfig

SHIPPED = Path(__file__).with_name("vocabulary.txt")
"""COCO's 80 categories, then styles and media."""


def read_vocabulary(config: AuditConfig) -> list[str]:
    """Returns the prompts to measure, each once, in the vocabulary's order.

    Raises:
        UserError: the file can't be read, or holds no prompt.
    """
    return whole_vocabulary(config)[: config.max_concepts]


def whole_vocabulary(config: AuditConfig) -> list[str]:
    """Returns all prompts of the vocabulary.

    Raises:
        UserError: see `read_vocabulary`.
    """
    if config.vocabulary is not None:
        prompts = _read_lines(config.vocabulary.expanduser())
        if not prompts:
            raise UserError(f"The vocabulary {config.vocabulary} holds no prompt; write one a line.")
        return prompts
    return list(dict.fromkeys([*_read_lines(SHIPPED), *_imagenet()]))


def _read_lines(file: Path) -> list[str]:
    try:
        text, _ = read_text(file)
    except (OSError, DocumentError) as error:
        raise UserError(
            f"The vocabulary {file} can't be read ({error}); name a file of prompts, one a line."
        ) from error
    lines = (line.strip() for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def _imagenet() -> list[str]:
    known = known_synset_names()
    return [f"a photo of {indefinite_article(known[synset][0])}{known[synset][0]}" for synset in challenge_synsets()]
