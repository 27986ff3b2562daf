"""Textual inversion (Gal et al. 2022, arXiv 2208.01618): new words, of which only the embeddings are learned.

A word of n vectors is n tokens, which are called as diffusers calls them: rc-car, rc-car_1, … So its pipelines, which
draw the samples, replace the word by its tokens, as `dreamloom.train.model.model.Model.tokenize` does.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.model import Model, NewWords

FOLDER = "embeddings"
"""Where an export holds the new words."""
_HIGHEST = 2
"""What old configs of CLIP, such as Stable Diffusion XL's, call the end of a caption: transformers then takes the
highest token for it, which new words are above."""


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
    """Adds the new words of a config to tokenizers and text encoders, each with the embedding of its start.

    Raises:
        UserError: a tokenizer knows the word already.
    """
    if not config.embeddings:
        return
    encoders = model.family.embedding_keys
    replaced = {word: " ".join(_tokens(word, config.embedding_vectors)) for word in config.starts}
    model.new_words = NewWords(replaced, {encoder: model.tokenizers[encoder] for encoder in encoders})
    for encoder in encoders:
        _add_to_encoder(model, encoder, config)


def _add_to_encoder(model: Model, encoder: str, config: TrainConfig) -> None:
    import tokenizers

    plain_tokenizer, module = model.tokenizers[encoder], model.components[encoder]
    tokenizer, plain = copy.deepcopy(plain_tokenizer), module.get_input_embeddings()
    vectors = []
    for word, start in config.starts.items():
        if word in tokenizer.get_vocab() or f"{word}</w>" in tokenizer.get_vocab():
            raise UserError(f"embeddings: {word} is a word that the model knows; choose one that it does not.")
        ids = plain_tokenizer(start, add_special_tokens=False).input_ids
        vectors += [plain.weight.detach()[ids[number % len(ids)]] for number in range(config.embedding_vectors)]
        tokens = _tokens(word, config.embedding_vectors)
        tokenizer.add_tokens([tokenizers.AddedToken(each, single_word=True, normalized=False) for each in tokens])
    module.set_input_embeddings(TokenEmbedding(plain, torch.stack(vectors).float()))
    model.tokenizers[encoder] = tokenizer
    _name_end(module, tokenizer.eos_token_id)


def _name_end(module: Any, token: int) -> None:
    """Says which token ends a caption, where an old config has the highest stand for it."""
    for part in module.modules():
        if getattr(part, "eos_token_id", None) == _HIGHEST:
            part.eos_token_id = module.config.eos_token_id = token


def take_embeddings(model: Model) -> dict[str, dict[str, Tensor]]:
    """Removes the new words from a model; returns the vectors of each, [n, D], by text encoder."""
    if model.new_words is None:
        return {}
    taken: dict[str, dict[str, Tensor]] = {word: {} for word in model.new_words.tokens}
    for encoder, tokenizer in model.new_words.plain_tokenizers.items():
        embedding = model.components[encoder].get_input_embeddings()
        for word, vectors in zip(taken, embedding.vectors.detach().chunk(len(taken)), strict=True):
            taken[word][encoder] = vectors
        count, width = embedding.weight.shape
        plain = nn.Embedding(count, width, _weight=embedding.weight.detach()).requires_grad_(False)
        model.components[encoder].set_input_embeddings(plain)
        model.tokenizers[encoder] = tokenizer
    model.new_words = None
    return taken


def save_embeddings(model: Model, words: Mapping[str, Mapping[str, Tensor]], folder: Path, dtype: torch.dtype) -> None:
    """Writes new words for other programs, into `embeddings/` inside a folder.

    `WORD.safetensors` is A1111's, ComfyUI's and kohya's, `WORD/learned_embeds.safetensors` and, of a second text
    encoder, `learned_embeds_2.safetensors` are for diffusers' `load_textual_inversion`, where a pipeline has it.

    Args:
        model: which has learned them.
        words: the vectors of each word, [n, D], by text encoder.
        folder: where to write, without a commit.
        dtype: of the written vectors.
    """
    import diffusers

    keys, pipeline = model.family.embedding_keys, getattr(diffusers, model.family.pipeline)
    for word, vectors in words.items():
        values = {encoder: each.to("cpu", dtype).contiguous() for encoder, each in vectors.items()}
        (folder / FOLDER).mkdir(exist_ok=True)
        save_file({keys[encoder]: each for encoder, each in values.items()}, folder / FOLDER / f"{word}.safetensors")
        if hasattr(pipeline, "load_textual_inversion"):
            (folder / FOLDER / word).mkdir()
            for encoder, each in values.items():
                name = encoder.replace("text_encoder", "learned_embeds")
                save_file({word: each}, folder / FOLDER / word / f"{name}.safetensors")


def _tokens(word: str, count: int) -> list[str]:
    return [word, *(f"{word}_{number}" for number in range(1, count))]
