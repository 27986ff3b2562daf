"""What the rest of the program needs to know about an optimizer; see dreamloom.train.optimizers. Imports no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

ParamGroups = list[dict[str, Any]]
"""Groups of parameters, each with its learning rate and weight decay, as torch's optimizers take them."""
Betas = tuple[float, float]
"""Decay rates of an optimizer's averages of the gradient, and of its square."""


@dataclass(frozen=True)
class OptimizerKind:
    """An optimizer that a config can name."""

    name: str
    """How project.yaml and the command line spell it."""
    make: Callable[[ParamGroups, Betas, float], Any]
    """Makes the optimizer of parameter groups, with betas and an epsilon; imports its library."""
    state_bytes: float
    """Bytes of its state per trained parameter, for estimates of memory."""
    betas: Betas | None = (0.9, 0.999)
    """Its betas, where the config sets none; None: it has none."""
    has_epsilon: bool = True
    """Whether it has an epsilon that can be set."""
    help: str = ""
    """What it is good for, after its name: "saves memory"."""
    takes_matrices: bool = False
    """Whether it gets convolutions as matrices, in float32, a chunk of the parameters at a time."""
    needs_all_weights: bool = False
    """Whether it looks at all weights at once, so that weights in bfloat16 can't be handed to it in chunks."""
    steps_alone: bool = False
    """Whether it looks at one parameter at a time, so that each can be stepped as soon as its gradient is known."""
    treats_numbers_alone: bool = False
    """Whether it treats each number of a weight by itself, so that processes may share the rows of a weight."""
    estimates_rate: bool = False
    """Whether it estimates one rate for all parameters (`d` of a group), of which the config's is a factor."""
    average: "Callable[[Any, Sequence[nn.Parameter]], list[Tensor]] | None" = None
    """Computes the averaged weights to use, from the optimizer and its parameters, where it averages by itself."""
