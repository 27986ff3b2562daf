"""Textual inversion (Gal et al. 2022, arXiv 2208.01618): new words, of which only the embeddings are learned.

A word of n vectors is n tokens, which are called as diffusers calls them: rc-car, rc-car_1, … So its pipelines, which
draw the samples, replace the word by its tokens, as `dreamloom.train.model.model.Model.tokenize` does.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.model import Model, NewWords

FOLDER = "embeddings"
"""Where an export holds the new words."""


class TokenEmbedding(nn.Module):
    """The embedding of a text encoder, with rows for new tokens as a parameter of their own.

    Args:
        plain: the embedding without them; its weight is shared.
        vectors: of the new tokens, whose ids follow those of `plain`, [n, D].
    """

    def __init__(self, plain: nn.Embedding, vectors: Tensor) -> None:
        super().__init__()
        self.weight = plain.weight
        self.vectors = nn.Parameter(vectors)

    def forward(self, tokens: Tensor) -> Tensor:
        """Looks up tokens, int64 [...]; returns [..., D]."""
        count = len(self.weight)
        known = F.embedding(tokens.clamp(max=count - 1), self.weight)
        new = F.embedding((tokens - count).clamp(min=0), self.vectors)
        return torch.where((tokens >= count)[..., None], new.to(known.dtype), known)


def add_embeddings(model: Model, config: TrainConfig) -> None:
    """Adds the new words of a config to tokenizer and text encoder, each with the embedding of its start.

    Raises:
        UserError: the tokenizer knows the word already.
    """
    import tokenizers

    if not config.embeddings:
        return
    (encoder,) = model.text_encoders  # families with several refuse new words
    plain_tokenizer, plain = model.tokenizers[encoder], model.components[encoder].get_input_embeddings()
    tokenizer = copy.deepcopy(plain_tokenizer)
    vectors = []
    for word, start in config.starts.items():
        if word in tokenizer.get_vocab() or f"{word}</w>" in tokenizer.get_vocab():
            raise UserError(f"embeddings: {word} is a word that the model knows; choose one that it does not.")
        ids = plain_tokenizer(start, add_special_tokens=False).input_ids
        vectors += [plain.weight.detach()[ids[number % len(ids)]] for number in range(config.embedding_vectors)]
        tokens = _tokens(word, config.embedding_vectors)
        tokenizer.add_tokens([tokenizers.AddedToken(each, single_word=True, normalized=False) for each in tokens])
    model.components[encoder].set_input_embeddings(TokenEmbedding(plain, torch.stack(vectors).float()))
    model.tokenizers[encoder] = tokenizer
    replaced = {word: " ".join(_tokens(word, config.embedding_vectors)) for word in config.starts}
    model.new_words = NewWords(replaced, plain_tokenizer)


def take_embeddings(model: Model) -> dict[str, Tensor]:
    """Removes the new words from a model; returns the vectors of each, [n, D]."""
    if model.new_words is None:
        return {}
    (encoder,) = model.text_encoders
    embedding = model.components[encoder].get_input_embeddings()
    each = embedding.vectors.detach().chunk(len(model.new_words.tokens))
    taken = dict(zip(model.new_words.tokens, each, strict=True))
    count, width = embedding.weight.shape
    plain = nn.Embedding(count, width, _weight=embedding.weight.detach()).requires_grad_(False)
    model.components[encoder].set_input_embeddings(plain)
    model.tokenizers[encoder], model.new_words = model.new_words.plain_tokenizer, None
    return taken


def save_embeddings(vectors: Mapping[str, Tensor], folder: Path, dtype: torch.dtype) -> None:
    """Writes new words for other programs, into `embeddings/` inside a folder.

    `WORD.safetensors` is A1111's and ComfyUI's, `WORD/learned_embeds.safetensors` is that of diffusers'
    `load_textual_inversion`.

    Args:
        vectors: of each word, [n, D].
        folder: where to write, without a commit.
        dtype: of the written vectors.
    """
    for word, each in vectors.items():
        values = each.to("cpu", dtype).contiguous()
        (folder / FOLDER / word).mkdir(parents=True)
        save_file({"emb_params": values}, folder / FOLDER / f"{word}.safetensors")
        save_file({word: values}, folder / FOLDER / word / "learned_embeds.safetensors")


def _tokens(word: str, count: int) -> list[str]:
    return [word, *(f"{word}_{number}" for number in range(1, count))]
