"""Counts the tokens of captions by a model's own vocabulary, without torch.

The tokens of https://github.com/openai/CLIP (clip/simple_tokenizer.py), as transformers' CLIPTokenizer has them: NFC,
lower case, words and signs apart, byte-level byte pairs. There is one token at each end; captions are cut at the limit.
"""

import gzip
import hashlib
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
"""Tokens that CLIP reads, both ends included."""
_BATCH = 5000
_ENDS = ("<|startoftext|>", "<|endoftext|>")
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class CaptionTokenizer:
    """A tokenizer and its limit."""

    tokenizer: Any
    limit: int
    """Tokens that the model's text encoder reads, both ends included."""
    reader: str = "CLIP"
    """The text encoder."""
    ends: int = len(_ENDS)
    """Tokens that it puts around a caption."""

    @property
    def digest(self) -> str:
        """A hash of all that the counts depend on."""
        return hashlib.sha256(f"{self.limit} {self.tokenizer.to_str()}".encode()).hexdigest()

    def count(self, captions: Sequence[str]) -> list[int]:
        """Counts the tokens of each caption, ends included and regardless of the limit."""
        texts = [caption.encode("utf-8", "replace").decode() for caption in captions]
        return [len(e.ids) + self.ends for e in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


@dataclass(frozen=True)
class LengthSummary:
    """The lengths of captions."""

    captions: int
    cut: int
    """Captions with more tokens than the limit."""
    limit: int
    longest: int
    """Tokens of the longest caption; 0 without captions."""
    longest_image: str
    """The image with the longest caption."""
    reader: str = "CLIP"
    """The text encoder that reads them."""

    def __str__(self) -> str:
        """Returns one line for people."""
        if not self.cut:
            none = f"none of {self.captions:,} captions is cut"
            return f"tokens: {none}, {self.reader} reads {self.limit}; most: {self.longest}"
        ends = "both ends" if self.reader == "CLIP" else "the end"
        return (
            f"tokens: {self.cut:,} of {self.captions:,} captions will be cut, as {self.reader} reads {self.limit}, "
            f"{ends} counted; most: {self.longest:,}, of {self.longest_image}"
        )


def measure_captions(
    captions: Sequence[tuple[str, str]], tokenizer: CaptionTokenizer, progress: Progress = silent
) -> LengthSummary:
    """Counts the tokens of captions.

    Args:
        captions: Image and caption of each.
        tokenizer: Counts the tokens.
        progress: Is called with the captions counted.
    """
    cut = longest = 0
    longest_image = ""
    for start in range(0, len(captions), _BATCH):
        batch = captions[start : start + _BATCH]
        counts = tokenizer.count([caption for _, caption in batch])
        for (image, _), count in zip(batch, counts, strict=True):
            cut += count > tokenizer.limit
            if count > longest:
                longest, longest_image = count, image
        progress(start + len(batch), len(captions), f"{cut} to be cut")
    return LengthSummary(len(captions), cut, tokenizer.limit, longest, longest_image, tokenizer.reader)


@lru_cache(maxsize=4)
def load_tokenizer(model: str | None = None) -> CaptionTokenizer:
    """Loads the tokenizer of a Stable Diffusion model, a diffusers folder or a cached hub ID; else CLIP's own.

    Raises:
        UserError: its tokenizer can't be read.
    """
    vocabulary = model and _file(model, "tokenizer/vocab.json")
    merges = model and _file(model, "tokenizer/merges.txt")
    if not (model and vocabulary and merges):
        return CaptionTokenizer(_tokenizer(*_clip()), LIMIT)
    try:
        limits = [_json(model, "tokenizer/tokenizer_config.json").get("model_max_length", LIMIT)]
        limits.append(_json(model, "text_encoder/config.json").get("max_position_embeddings", LIMIT))
        token_ids = json.loads(vocabulary.read_bytes())
        pairs = [tuple(line.split()) for line in merges.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        return CaptionTokenizer(_tokenizer(token_ids, pairs), int(min(limits)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"The tokenizer of {model} can't be read ({error}); copy the model again.") from error


@lru_cache(maxsize=4)
def load_t5_tokenizer(model: str | None, length: int = 256) -> CaptionTokenizer | None:
    """Loads the tokenizer of the T5 of a Stable Diffusion 3; None where the model has none.

    Args:
        model: a diffusers folder or a cached hub ID.
        length: the tokens that T5 reads.

    Raises:
        UserError: its tokenizer can't be read.
    """
    if not model or (file := _file(model, "tokenizer_3/tokenizer.json")) is None:
        return None
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing more exact
        raise UserError(f"The tokenizer of {model} can't be read ({error}); copy the model again.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return CaptionTokenizer(tokenizer, length, "T5", 1)


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
    """Returns CLIP's vocabulary and merges, from open_clip's file; open_clip itself is not imported."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.origin is not None
    with gzip.open(Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz"), "rt", encoding="utf-8") as stream:
        lines = stream.read().split("\n")[1 : 49152 - 256 - 2 + 1]  # as many as CLIP uses
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
        cached = try_to_load_from_cache(model, inside)
    except HFValidationError:  # not a hub ID
        return None
    return Path(cached) if isinstance(cached, str) else None


def _json(model: str, inside: str) -> dict[str, Any]:
    path = _file(model, inside)
    return dict(json.loads(path.read_bytes())) if path else {}
