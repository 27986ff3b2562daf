"""Settings of textual inversion: new words whose embeddings are learned."""

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from dreamloom.base.stage import Group, StageConfig

_EMBEDDINGS = Group("Textual inversion")
_EMBEDDING = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)=(\S.*)")


class EmbeddingSettings(StageConfig):
    """New words whose embeddings are learned."""

    embeddings: Annotated[list[str], _EMBEDDINGS] = Field(
        [],
        description="New words to learn, each as WORD=START, such as rc-car=toy car; captions and prompts say WORD, "
        "which begins with the embedding of START.",
    )
    embedding_vectors: Annotated[int, _EMBEDDINGS] = Field(
        4, ge=1, le=32, description="Vectors of each new word: the tokens that it takes in a caption."
    )
    embedding_learning_rate: Annotated[float, _EMBEDDINGS] = Field(
        5e-4, gt=0, le=10, description="Learning rate of the new words."
    )
    embeddings_alone: Annotated[bool, _EMBEDDINGS] = Field(
        False, description="Train the new words alone, and no weights of the model."
    )

    @property
    def starts(self) -> dict[str, str]:
        """The new words → the words with whose embeddings they begin."""
        pairs = [_EMBEDDING.fullmatch(each) for each in self.embeddings]
        return {match[1]: match[2] for match in pairs if match}

    @model_validator(mode="after")
    def _check_embeddings(self) -> Self:
        for each in self.embeddings:
            if not _EMBEDDING.fullmatch(each):
                raise ValueError(
                    f"embeddings: {each!r} is not WORD=START, such as rc-car=toy car; WORD is of small letters, digits "
                    "and hyphens"
                )
        if len(self.starts) < len(self.embeddings):
            raise ValueError("embeddings names a word twice")
        if self.embeddings_alone and not self.embeddings:
            raise ValueError("embeddings_alone needs embeddings: name the words to learn")
        return self
