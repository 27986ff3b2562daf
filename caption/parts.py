"""A caption in its parts: a main prompt and weighted tags, which stay apart until the caption is shown."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

Tag = tuple[str, float]
"""A tag and its weight; 1 is usual."""


@dataclass(frozen=True, slots=True)
class CaptionParts:
    """What a caption is built from."""

    text: str = ""
    """The main prompt; or, unless it is whole, a text as it was written: up to its first comma it is the main prompt,
    and the rest are tags of weight 1."""
    whole: bool = False
    """Whether the text is a main prompt with all its commas."""
    tags: tuple[Tag, ...] = ()
    """Tags behind those of the text, in the order in which they were given."""

    @property
    def is_blank(self) -> bool:
        """Whether it says nothing."""
        return not self.text.strip() and not self.tags

    @property
    def caption(self) -> str:
        """The caption without shuffling: the text as it was written, or with tags, the heavier first."""
        if not self.tags:
            return self.text
        prompt, tags = self.divide()
        return join(prompt, (tag for tag, _ in tags))

    def divide(self) -> tuple[str, list[Tag]]:
        """Returns the main prompt and all tags, the heavier first; a tag that the text has is not added again.

        Blank tags are left out.
        """
        phrases = [phrase.strip() for phrase in self.text.split(",")]
        prompt = self.text.strip() if self.whole else phrases[0]
        tags = [] if self.whole else [(phrase, 1.0) for phrase in phrases[1:] if phrase]
        present = {prompt, *phrases, ""}
        for tag, weight in sorted(self.tags, key=_heaviest_first):
            if tag.strip() not in present:
                present.add(tag.strip())
                tags.append((tag.strip(), weight))
        return prompt, sorted(tags, key=_heaviest_first)


def join(prompt: str, tags: Iterable[str]) -> str:
    """Joins a main prompt, which may be empty, and tags."""
    return ", ".join([prompt, *tags] if prompt else tags)


def with_tags(prompts: Iterable[CaptionParts], tags: Iterable[Tag]) -> tuple[CaptionParts, ...]:
    """Adds tags to each of several captions of an image."""
    added = tuple(tags)
    if not added:
        return tuple(prompts)
    return tuple(replace(prompt, tags=(*prompt.tags, *added)) for prompt in prompts)


def _heaviest_first(tag: Tag) -> float:
    return -tag[1]
