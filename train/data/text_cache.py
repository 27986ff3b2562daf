"""Captions as tensors for the UNet: token ids, or the text encoder's hidden states while it is not trained."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from dreamloom.base.progress import Progress, silent
from dreamloom.train.data.tensor_store import TensorStore
from dreamloom.train.model.model import Model, hash_weights

_TOKENIZED_TOGETHER = 1024
_ENCODED_TOGETHER = 64


class TextCache:
    """Captions as tensors. Hidden states are cached by tokens and text encoder, so each is computed once in all runs.

    Args:
        model: its tokenizer and text encoder are used.
        folder: where hidden states are kept; None: in memory, for this process.
        frozen: whether the text encoder is not trained, so that its hidden states can be kept.
    """

    def __init__(self, model: Model, folder: Path | None, frozen: bool) -> None:
        """Opens the cache of this text encoder; reads nothing yet."""
        self.model = model
        self.frozen = frozen
        self.tokens: dict[str, Tensor] = {}
        layer = f"-{model.clip_skip}" if model.clip_skip > 1 else ""
        self.store = TensorStore(
            folder / f"text-{hash_weights(model.text_encoder)}{layer}" if folder and frozen else None
        )
        self._tokenizer_lock = Lock()  # it has a state, which threads must not share

    def add(self, captions: Iterable[str], progress: Progress = silent) -> None:
        """Tokenizes captions; where the text encoder is frozen, encodes those that are missing.

        Raises:
            UserError: another process is filling the folder.
        """
        unique = sorted(set(captions) - set(self.tokens))
        for start in range(0, len(unique), _TOKENIZED_TOGETHER):
            chunk = unique[start : start + _TOKENIZED_TOGETHER]
            self.tokens |= zip(chunk, self.model.tokenize(chunk), strict=True)
        if not self.frozen:
            return
        by_key = {_key(tokens): tokens for tokens in map(self.tokens.__getitem__, unique)}
        with self.store.filling(set(by_key), progress):
            missing = sorted(set(by_key) - set(self.store.entries))
            for start in range(0, len(missing), _ENCODED_TOGETHER):
                keys = missing[start : start + _ENCODED_TOGETHER]
                hidden_states = self._encode([by_key[key] for key in keys])
                self.store.put(dict(zip(keys, hidden_states, strict=True)))
                progress(start + len(keys), len(missing), "encoding captions")

    def get(self, captions: Sequence[str]) -> Tensor:
        """Returns hidden states where the text encoder is frozen, else token ids for it to encode.

        Captions that were not added give token ids, also for those that are asked for together with them.

        Returns:
            float16 [n, L, D], or int64 [n, L], on the CPU.
        """
        if not all(caption in self.tokens for caption in captions):
            with self._tokenizer_lock:
                return self.model.tokenize(list(captions))
        tokens = [self.tokens[caption] for caption in captions]
        return torch.stack([self.store.entries[_key(each)] for each in tokens] if self.frozen else tokens)

    @torch.no_grad()
    def _encode(self, tokens: Sequence[Tensor]) -> Tensor:
        return self.model.encode_text(torch.stack(list(tokens)).to(self.model.device)).half().cpu().contiguous()


def _key(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.numpy().tobytes()).hexdigest()
