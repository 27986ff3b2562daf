"""What the UNet is told of the captions: token numbers, or the text encoder's answers while it does not learn."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from dreamloom.base.progress import Progress, silent
from dreamloom.train.data.tensor_store import TensorStore
from dreamloom.train.model.model import Model, hash_weights

_TOGETHER = 64


class TextCache:
    """Captions as tensors. An encoder's answers are kept by what its tokens are, so each is made once in all runs.

    Args:
        folder: where the answers are kept; None: in memory, for this process.
        frozen: the text encoder does not learn, so its answers may be kept.
    """

    def __init__(self, model: Model, folder: Path | None, frozen: bool) -> None:
        self.model = model
        self.frozen = frozen
        self.tokens: dict[str, Tensor] = {}
        self.store = TensorStore(folder / f"text-{hash_weights(model.text_encoder)}" if folder and frozen else None)
        self._tokenizer = Lock()  # it keeps a state, and loses its way between threads

    def add(self, captions: Iterable[str], progress: Progress = silent) -> None:
        """Prepares captions; where the encoder is frozen, its answers are made where they are missing.

        Raises:
            UserError: another process is filling the folder.
        """
        unique = sorted(set(captions) - set(self.tokens))
        for start in range(0, len(unique), 1024):
            chunk = unique[start : start + 1024]
            self.tokens |= zip(chunk, self.model.tokenize(chunk), strict=True)
        if not self.frozen:
            return
        wanted = {_key(tokens): tokens for tokens in map(self.tokens.__getitem__, unique)}
        with self.store.filling(set(wanted), progress):
            missing = sorted(set(wanted) - set(self.store.entries))
            for start in range(0, len(missing), _TOGETHER):
                keys = missing[start : start + _TOGETHER]
                answers = self._encode([wanted[key] for key in keys])
                self.store.put(dict(zip(keys, answers, strict=True)))
                progress(start + len(keys), len(missing), "encoding captions")

    def get(self, captions: Sequence[str]) -> Tensor:
        """What goes to the UNet's side: answers, float16 [n, L, D], or tokens, int64 [n, L], for the encoder to read.

        Captions that were not added are tokens, and so are all that are asked for together with one.
        """
        if not all(caption in self.tokens for caption in captions):
            with self._tokenizer:
                return self.model.tokenize(list(captions))
        tokens = [self.tokens[caption] for caption in captions]
        return torch.stack([self.store.entries[_key(one)] for one in tokens] if self.frozen else tokens)

    @torch.no_grad()
    def _encode(self, tokens: Sequence[Tensor]) -> Tensor:
        return self.model.encode_text(torch.stack(list(tokens)).to(self.model.device)).half().cpu().contiguous()


def _key(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.numpy().tobytes()).hexdigest()
