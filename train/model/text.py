"""Captions on their way to the denoiser: token ids, what text encoders make of them, and what the denoiser is given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]
TOKENS = "tokens"
"""Key of an encoder's token ids; its answers have others."""


@dataclass(frozen=True)
class Text:
    """A batch of n captions, for each text encoder: its token ids where it learns, what it makes of them elsewhere."""

    encoders: Mapping[str, Mapping[str, Tensor]]
    """Name of a text encoder → TOKENS → int64 [n, L]; or what the encoder answers: `states`, [n, L, D], and `pooled`,
    [n, P], of one that sums captions up."""

    def map(self, change: Change) -> "Text":
        """Returns a text of changed tensors."""
        return Text({name: {key: change(each) for key, each in part.items()} for name, part in self.encoders.items()})


@dataclass(frozen=True)
class Condition:
    """What the denoiser is given of a batch beside noisy latents and timesteps."""

    states: Tensor
    """Hidden states of the captions, [n, L, D]."""
    pooled: Tensor | None = None
    """Captions summed up, [n, P]; None: the denoiser takes none."""
    sizes: Tensor | None = None
    """Original height and width, top and left of the crop, height and width shown, in pixels, [n, 6]; None: it takes
    none."""

    def map(self, change: Change) -> "Condition":
        """Returns a condition of changed tensors."""
        pooled = None if self.pooled is None else change(self.pooled)
        return Condition(change(self.states), pooled, None if self.sizes is None else change(self.sizes))


def stack(conditions: Sequence[Condition]) -> Condition:
    """Makes one condition of those of single images, which have no first dimension."""
    pooled = [each.pooled for each in conditions if each.pooled is not None]
    sizes = [each.sizes for each in conditions if each.sizes is not None]
    states = torch.stack([each.states for each in conditions])
    return Condition(states, torch.stack(pooled) if pooled else None, torch.stack(sizes) if sizes else None)
