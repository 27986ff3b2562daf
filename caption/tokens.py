"""How many tokens CLIP's text encoder reads of a caption, counted by the model's own vocabulary, without torch.

The tokens of https://github.com/openai/CLIP (clip/simple_tokenizer.py), as transformers' CLIPTokenizer has them: NFC,
lower case, words and signs apart, byte-level byte pairs. One token stands at each end; what is beyond the limit is cut.
"""

import gzip
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent

LIMIT = 77
"""Tokens that CLIP reads, both ends counted."""
_TOGETHER = 5000
_ENDS = ("<|startoftext|>", "<|endoftext|>")
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class Tokens:
    """A model's tokens."""

    tokenizer: Any
    limit: int
    """That its text encoder reads, both ends counted."""

    def count(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption, both ends counted, whether it will be cut or not."""
        texts = [caption.encode("utf-8", "replace").decode() for caption in captions]
        return [len(one.ids) + len(_ENDS) for one in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


@dataclass(frozen=True)
class Lengths:
    """What is to be said of the lengths of captions."""

    captions: int
    cut: int
    """Captions that have more tokens than the limit."""
    limit: int
    longest: int
    """Tokens of the worst caption; 0 where there is none."""
    where: str
    """The image that has it."""

    def __str__(self) -> str:
        """One line for people."""
        if not self.cut:
            return f"tokens: none of {self.captions:,} captions is cut, CLIP reads {self.limit}; most: {self.longest}"
        return (
            f"tokens: {self.cut:,} of {self.captions:,} captions will be cut, as CLIP reads {self.limit}, both ends "
            f"counted; most: {self.longest:,}, of {self.where}"
        )


def lengths(captions: Sequence[tuple[str, str]], tokens: Tokens, progress: Progress = silent) -> Lengths:
    """Counts the tokens of pictures' captions.

    Args:
        captions: image and caption.
    """
    cut = longest = 0
    where = ""
    for start in range(0, len(captions), _TOGETHER):
        some = captions[start : start + _TOGETHER]
        for (picture, _), count in zip(some, tokens.count([caption for _, caption in some]), strict=True):
            cut += count > tokens.limit
            if count > longest:
                longest, where = count, picture
        progress(start + len(some), len(captions), f"{cut} to be cut")
    return Lengths(len(captions), cut, tokens.limit, longest, where)


@lru_cache(maxsize=4)
def tokens_of(model: str | None = None) -> Tokens:
    """The tokens of a Stable Diffusion model: a diffusers folder, or a hub id that is on this machine; else CLIP's own.

    Raises:
        UserError: its tokenizer can't be read.
    """
    vocabulary = model and _file(model, "tokenizer/vocab.json")
    merges = model and _file(model, "tokenizer/merges.txt")
    if not (model and vocabulary and merges):
        return Tokens(_tokenizer(*_clip()), LIMIT)
    try:
        limits = [_json(model, "tokenizer/tokenizer_config.json").get("model_max_length", LIMIT)]
        limits.append(_json(model, "text_encoder/config.json").get("max_position_embeddings", LIMIT))
        known = json.loads(vocabulary.read_bytes())
        pairs = [tuple(line.split()) for line in merges.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        return Tokens(_tokenizer(known, pairs), int(min(limits)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"The tokenizer of {model} can't be read ({error}); copy the model again.") from error


def _tokenizer(vocabulary: dict[str, int], merges: list[Any]) -> Tokenizer:
    parts = {"unk_token": _ENDS[1], "end_of_word_suffix": "</w>", "continuing_subword_prefix": ""}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, **parts))
    tokenizer.add_special_tokens(list(_ENDS))
    blanks = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), blanks, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def _clip() -> tuple[dict[str, int], list[Any]]:
    """CLIP's vocabulary and merges, from the file that open_clip has of them; open_clip itself is not imported."""
    found = importlib.util.find_spec("open_clip")
    assert found is not None and found.origin is not None
    with gzip.open(Path(found.origin).with_name("bpe_simple_vocab_16e6.txt.gz"), "rt", encoding="utf-8") as stream:
        lines = stream.read().split("\n")[1 : 49152 - 256 - 2 + 1]  # as many as CLIP takes
    merges = [tuple(line.split()) for line in lines]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), *_ENDS]
    return {word: number for number, word in enumerate(words)}, merges


def _file(model: str, inside: str) -> Path | None:
    path = Path(model).expanduser() / inside
    if path.is_file():
        return path
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, inside)
    except HFValidationError:  # not an id of the hub
        return None
    return Path(found) if isinstance(found, str) else None


def _json(model: str, inside: str) -> dict[str, Any]:
    path = _file(model, inside)
    return dict(json.loads(path.read_bytes())) if path else {}
