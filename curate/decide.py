"""Takes decisions about images, and takes them back (dreamloom.scrape.collection.decisions)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dreamloom.base.errors import UserError
from dreamloom.base.text import is_utf8
from dreamloom.curate.find import FoundImage
from dreamloom.curate.source import Role
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.collection.decisions import (
    HAND,
    SUBJECTS,
    Decision,
    Decisions,
    What,
    next_time,
)

Plan = Mapping[Collection, Sequence[Decision]]
"""Collection → the rows to add to its decisions."""


@dataclass(frozen=True)
class Word:
    """What is said of images."""

    what: What
    value: str | None = None
    reason: str | None = None
    who: str = HAND


def check_value(what: What, value: str | None) -> str | None:
    """Checks what a decision says, and returns it as the table has it.

    Raises:
        UserError: it is no such value.
    """
    if what in (What.KEEP, What.DROP):
        return None
    text = value or ""
    if not is_utf8(text):
        raise UserError(f"{text!r} is not UTF-8; write it in UTF-8.")
    if what not in _CHECKS:
        return text
    is_right, example = _CHECKS[what]
    if not is_right(text):
        raise UserError(f"{text[:60]!r} is no {what}; write {example}.")
    return text


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        return []


def _is_crop(text: str) -> bool:
    numbers = _numbers(text)
    return len(numbers) == 4 and 0 <= numbers[0] < numbers[2] < 1e9 and 0 <= numbers[1] < numbers[3] < 1e9


def _is_point(text: str) -> bool:
    numbers = _numbers(text)
    return len(numbers) == 2 and all(0 <= number <= 1 for number in numbers)


def _is_between(low: float, high: float) -> Callable[[str], bool]:
    return lambda text: len(numbers := _numbers(text)) == 1 and low <= numbers[0] <= high


_CHECKS: Mapping[What, tuple[Callable[[str], bool], str]] = {
    What.CROP: (_is_crop, "LEFT,TOP,RIGHT,BOTTOM, such as 0,0,400,300 (pixels) or 0.1,0,0.9,1 (shares)"),
    What.FOCUS: (_is_point, "X,Y in shares of the sides, such as 0.5,0.2 (in the middle, near the top)"),
    What.FLIP: (lambda text: text in ("yes", "no"), "yes or no"),
    What.MULTIPLY: (
        _is_between(0.001, 10_000),
        "a number from 0.001 to 10000, such as 2 or 0.5; to leave it out, drop",
    ),
    What.LOSS_SCALE: (_is_between(-100, 100), "a number from -100 to 100, such as 0.5"),
    What.ROLE: (lambda text: text == Role.WITNESS, f"{Role.WITNESS}: it is never trained on, and measures"),
}


def plan_words(images: Sequence[FoundImage], words: Sequence[Word]) -> dict[Collection, list[Decision]]:
    """Returns the decisions that say these words of each image, without what the same one said last.

    Raises:
        UserError: a value is wrong, or a collection's decisions can't be read.
    """
    words = [Word(word.what, check_value(word.what, word.value), word.reason, word.who) for word in words]
    decided = {collection: collection.decisions() for collection in dict.fromkeys(i.collection for i in images)}
    time = next_time(decided.values())
    plan: dict[Collection, list[Decision]] = {collection: [] for collection in decided}
    for image in images:
        for word in words:
            decision = Decision(image.key, time, word.what, word.value, word.reason, word.who)
            said = decided[image.collection].words.get(decision.subject, ())
            last = next((before for before in reversed(said) if before.who == decision.who), None)
            if last is None or last[2:] != decision[2:]:
                plan[image.collection].append(decision)
    return plan


def plan_undo(
    collections: Sequence[Collection], images: Sequence[FoundImage] | None, whats: Sequence[What] = ()
) -> dict[Collection, list[Decision]]:
    """Returns the rows that take back the last decision about each image.

    Args:
        collections: where decisions may be.
        images: whose; None: those of the last command, all that it said.
        whats: only what is about the same; none: whatever was said last.

    Raises:
        UserError: there is nothing to take back.
    """
    decided = {collection: collection.decisions() for collection in collections}
    taken = _last_command(decided) if images is None else _last_words(decided, images, {SUBJECTS[w] for w in whats})
    if not any(taken.values()):
        raise UserError("There is no decision to take back; `dreamloom decisions list` shows those that count.")
    time = next_time(decided.values())
    return {each: [word._replace(time=time, undo=True) for word in words] for each, words in taken.items()}


def _last_command(decided: Mapping[Collection, Decisions]) -> dict[Collection, list[Decision]]:
    last = {collection: decisions.last() for collection, decisions in decided.items()}
    newest = max((words[0].time for words in last.values() if words), default="")
    return {collection: [word for word in words if word.time == newest] for collection, words in last.items()}


def _last_words(
    decided: Mapping[Collection, Decisions], images: Sequence[FoundImage], subjects: set[str]
) -> dict[Collection, list[Decision]]:
    asked = {(image.collection, image.key) for image in images}
    taken: dict[tuple[Collection, str], list[Decision]] = {}
    for collection, decisions in decided.items():
        for (key, subject), said in decisions.words.items():
            if (collection, key) in asked and (not subjects or subject in subjects):
                taken.setdefault((collection, key), []).append(said[-1])
    found: dict[Collection, list[Decision]] = {}
    for (collection, _), words in taken.items():
        newest = max(word.time for word in words)
        found.setdefault(collection, []).extend(word for word in words if word.time == newest)
    return found


def carry_out(plan: Plan) -> Counter[str]:
    """Adds decisions to their collections, and counts them by source.

    Raises:
        UserError: another process works on a collection, or an address can't be written to.
    """
    for collection, decisions in plan.items():
        collection.add_decisions(decisions)
    return Counter({collection.name: len(decisions) for collection, decisions in plan.items() if decisions})
