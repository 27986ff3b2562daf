"""What the text encoder says of the captions of a run."""

import torch
from torch import Tensor

from train.model import Model

REMEMBERED_BYTES = 512 * 2**20
"""Answers up to this size are kept on the device. A text encoder costs under 1 % of a step: more is not worth it."""
_TOGETHER = 64


class Texts:
    """The text encoder's hidden states, by the captions' numbers.

    Args:
        captions: each once; their place is their number.
        frozen: the text encoder does not learn, so its answers may be remembered.
    """

    def __init__(self, model: Model, captions: list[str], frozen: bool) -> None:
        self.model = model
        chunks = [captions[start : start + 1024] for start in range(0, len(captions), 1024)]
        self.tokens = torch.cat([model.tokens(chunk) for chunk in chunks]).to(model.device)
        size = self.tokens.numel() * model.text_encoder.config.hidden_size * 4
        self.remembered = self._all() if frozen and size <= REMEMBERED_BYTES else None

    def __getitem__(self, numbers: Tensor) -> Tensor:
        """Hidden states [n, L, D] of the captions of these numbers, int64 [n] on the device."""
        if self.remembered is not None:
            return self.remembered[numbers]
        return self.model.states(self.tokens[numbers])

    @torch.no_grad()
    def _all(self) -> Tensor:
        return torch.cat([self.model.states(tokens) for tokens in torch.split(self.tokens, _TOGETHER)])
