"""Captions as tensors: token ids, or what a text encoder makes of them while it does not learn."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from dreamloom.base.progress import Progress, silent
from dreamloom.train.data.tensor_store import TensorStore
from dreamloom.train.model.model import Model, hash_weights
from dreamloom.train.model.text import TOKENS, Text

_TOKENIZED_TOGETHER = 1024
_ENCODED_TOGETHER = 64


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
        self.tokens: dict[str, dict[str, Tensor]] = {name: {} for name in model.text_encoders}
        layer = f"-{model.clip_skip}" if model.clip_skip > 1 else ""
        self.stores = {
            name: TensorStore(folder / f"text-{hash_weights(module)}{layer}" if folder else None)
            for name, module in model.text_encoders.items()
            if name not in changing
        }
        self._tokenizer_lock = Lock()  # it has a state, which threads must not share

    def add(self, captions: Iterable[str], progress: Progress = silent) -> None:
        """Tokenizes captions; where a text encoder is frozen, encodes those that are missing.

        Raises:
            UserError: another process is filling the folder.
        """
        unique = sorted(set(captions))
        for name, known in self.tokens.items():
            new = [caption for caption in unique if caption not in known]
            for start in range(0, len(new), _TOKENIZED_TOGETHER):
                chunk = new[start : start + _TOKENIZED_TOGETHER]
                known |= zip(chunk, self.model.tokens_for(name, self.model.spell_out(chunk)), strict=True)
            if name in self.stores:
                self._fill(name, [known[caption] for caption in new], progress)

    def get(self, captions: Sequence[str]) -> Text:
        """Returns the answers of frozen text encoders, in float16, and token ids for those that change, on the CPU.

        Captions that were not added give token ids alone, also for those that are asked for together with them.
        """
        if not all(caption in known for known in self.tokens.values() for caption in captions):
            with self._tokenizer_lock:
                return self.model.tokenize(list(captions))
        return Text({name: self._look_up(name, [known[c] for c in captions]) for name, known in self.tokens.items()})

    def _look_up(self, name: str, tokens: Sequence[Tensor]) -> Mapping[str, Tensor]:
        if name not in self.stores:
            return {TOKENS: torch.stack(list(tokens))}
        entries = self.stores[name].entries
        return {part: torch.stack([entries[key] for key in keys]) for part, keys in self._keys(name, tokens).items()}

    def _keys(self, name: str, tokens: Sequence[Tensor]) -> dict[str, list[str]]:
        """The keys of each part of what a text encoder answers; that of `states` is the caption's own."""
        own = [_key(each) for each in tokens]
        endings = {part: "" if part == "states" else f"-{part}" for part in self.model.answers(name)}
        return {part: [key + ending for key in own] for part, ending in endings.items()}

    def _fill(self, name: str, tokens: Sequence[Tensor], progress: Progress) -> None:
        store, by_key = self.stores[name], {_key(each): each for each in tokens}
        wanted = {key: {keys[0] for keys in self._keys(name, [each]).values()} for key, each in by_key.items()}
        with store.filling({entry for entries in wanted.values() for entry in entries}, progress):
            missing = sorted(key for key, entries in wanted.items() if not entries <= store.entries.keys())
            for start in range(0, len(missing), _ENCODED_TOGETHER):
                chunk = [by_key[key] for key in missing[start : start + _ENCODED_TOGETHER]]
                keys, answers = self._keys(name, chunk), self._encode(name, chunk)
                store.put({k: row for part in keys for k, row in zip(keys[part], answers[part], strict=True)})
                progress(start + len(chunk), len(missing), "encoding captions")

    @torch.no_grad()
    def _encode(self, name: str, tokens: Sequence[Tensor]) -> dict[str, Tensor]:
        answers = self.model.answer(name, torch.stack(list(tokens)).to(self.model.device))
        return {part: answer.half().cpu().contiguous() for part, answer in answers.items()}


def _key(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.numpy().tobytes()).hexdigest()
