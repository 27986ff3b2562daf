"""A collection and the part it plays in a project."""

from dataclasses import dataclass
from enum import StrEnum

from dreamloom.scrape.collection import Collection


class Role(StrEnum):
    """What a source is for."""

    TRAINING = "training"
    """What the model shall learn: the user's own images."""
    GROUND_TRUTH = "ground_truth"
    """What the model knows and shall keep: images of the world at large."""


@dataclass(frozen=True)
class Source:
    """A collection with its role. Its name is the collection's, and the name of its folder in the dataset."""

    collection: Collection
    role: Role
    share: float = 1.0
    """Of ground truth: how much of it comes from this source, relative to the others' shares."""
    multiply: float = 1.0
    """Of training images: how often each is shown in an epoch."""

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.collection.name
