"""Captions as tensors: token ids, or what a text encoder makes of them while it does not learn."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import RLock

import torch
from torch import Tensor

from dreamloom.base.progress import Progress, silent
from dreamloom.train.data.tensor_store import DamagedError, TensorStore
from dreamloom.train.model.model import Model, hash_weights
from dreamloom.train.model.text import TOKENS, Text

_TOKENIZED_TOGETHER = 1024
_ENCODED_TOGETHER = 64
_KEPT = 4096
"""Captions whose tokens are kept in memory, some 600 bytes each."""


class TextCache:
    """Captions as tensors. What frozen text encoders answer is cached by tokens and encoder: once for all runs.

    Args:
        model: its tokenizers and text encoders are used.
        folder: where answers are kept; None: in memory, for this process.
        changing: the text encoders whose answers change, so that they can't be kept.
    """

    def __init__(self, model: Model, folder: Path | None, changing: Collection[str]) -> None:
        """Opens the cache of each text encoder; reads nothing yet."""
        self.model = model
        layer = f"-{model.clip_skip}" if model.clip_skip > 1 else ""
        self.stores = {
            name: TensorStore(folder / f"text-{hash_weights(module)}{layer}" if folder else None)
            for name, module in model.text_encoders.items()
            if name not in changing
        }
        self._added: set[str] = set()
        self._tokens: dict[str, tuple[Tensor, ...]] = {}  # of some captions, by encoder
        self._lock = RLock()  # tokenizers have a state, which threads must not share

    def add(self, captions: Iterable[str], progress: Progress = silent) -> None:
        """Encodes captions that are missing, where a text encoder is frozen.

        Raises:
            UserError: another process is filling the folder.
        """
        new = sorted(set(captions) - self._added)
        self._added.update(new)
        for name, store in self.stores.items():
            store.look_through(progress)
            missing: dict[str, Tensor] = {}
            for start in range(0, len(new), _TOKENIZED_TOGETHER):
                some = new[start : start + _TOKENIZED_TOGETHER]
                missing |= self._missing(name, self.model.tokens_for(name, some))
            self._fill(name, missing, progress)

    def get(self, captions: Sequence[str]) -> Text:
        """Returns the answers of frozen text encoders, in float16, and token ids for those that change, on the CPU.

        Captions that were not added give token ids alone, also for those that are asked for together with them.
        """
        are_added = all(caption in self._added for caption in captions)
        tokens = self._tokenize(captions)
        return Text(
            {
                name: self._look_up(name, of_encoder)
                if are_added and name in self.stores
                else {TOKENS: torch.stack(of_encoder)}
                for name, of_encoder in zip(self.model.text_encoders, zip(*tokens, strict=True), strict=True)
            }
        )

    def _tokenize(self, captions: Sequence[str]) -> list[tuple[Tensor, ...]]:
        """Returns the token ids of each caption, for each text encoder."""
        with self._lock:
            if new := [caption for caption in dict.fromkeys(captions) if caption not in self._tokens]:
                if len(self._tokens) + len(new) > _KEPT:
                    self._tokens, new = {}, list(dict.fromkeys(captions))
                of_encoders = [self.model.tokens_for(name, new) for name in self.model.text_encoders]
                self._tokens |= zip(new, zip(*of_encoders, strict=True), strict=True)
            return [self._tokens[caption] for caption in captions]

    def _look_up(self, name: str, tokens: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Returns the answers to captions that were added; damaged ones are computed again."""
        store, keys = self.stores[name], self._keys(name, tokens)
        try:
            return {part: torch.stack([store[key] for key in of_part]) for part, of_part in keys.items()}
        except DamagedError:
            with self._lock, self.model.awake(name, beside_denoiser=True):  # a step may be under way
                self._fill(name, self._missing(name, tokens), silent)
            return self._look_up(name, tokens)

    def _missing(self, name: str, tokens: Iterable[Tensor]) -> dict[str, Tensor]:
        """Returns the tokens to which an answer, or a part of it, is missing, by the key of `states`."""
        rows = list(tokens)
        keys = self._keys(name, rows)
        missing = set(self.stores[name].missing([key for of_part in keys.values() for key in of_part]))
        by_row = zip(rows, zip(*keys.values(), strict=True), strict=True)
        return {_key(row): row for row, own in by_row if not missing.isdisjoint(own)}

    def _keys(self, name: str, tokens: Sequence[Tensor]) -> dict[str, list[str]]:
        """The keys of each part of what a text encoder answers; that of `states` is the caption's own."""
        own = [_key(each) for each in tokens]
        endings = {part: "" if part == "states" else f"-{part}" for part in self.model.answers(name)}
        return {part: [key + ending for key in own] for part, ending in endings.items()}

    def _fill(self, name: str, missing: Mapping[str, Tensor], progress: Progress) -> None:
        store, wanted = self.stores[name], self._keys(name, list(missing.values()))
        with store.filling([key for of_part in wanted.values() for key in of_part], progress):
            left = self._missing(name, missing.values())  # who held the lock may have added some
            with self.model.awake(name) if left else nullcontext():
                for start in range(0, len(left), _ENCODED_TOGETHER):
                    chunk = [left[key] for key in sorted(left)[start : start + _ENCODED_TOGETHER]]
                    keys, answers = self._keys(name, chunk), self._encode(name, chunk)
                    store.put({k: row for part in keys for k, row in zip(keys[part], answers[part], strict=True)})
                    progress(start + len(chunk), len(left), "encoding captions")

    @torch.no_grad()
    def _encode(self, name: str, tokens: Sequence[Tensor]) -> dict[str, Tensor]:
        answers = self.model.answer(name, torch.stack(list(tokens)).to(self.model.device))
        return {part: answer.half().cpu().contiguous() for part, answer in answers.items()}


def _key(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.numpy().tobytes()).hexdigest()
