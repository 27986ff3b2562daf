"""Steps the parameters with the optimizer that the config names, whatever library it is of.

The optimizers themselves are in dreamloom.train.optimizers.

Weights in bfloat16 are too coarse for a small update. They are rounded stochastically, so that each moves as far as it
should on average (Zamirai et al. 2020, arXiv 2010.06192).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dreamloom.train.config import TrainConfig
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.model.family import is_text_encoder
from dreamloom.train.optimizers import OPTIMIZERS
from dreamloom.train.optimizers.lr_schedulers import LR_SCHEDULERS

CHUNK_ELEMENTS = 32 * 2**20
"""Weights that are in float32 at a time, if they are stored in bfloat16."""

_EMBEDDINGS = "embeddings"
"""The part of new words."""


def lr_factor(config: TrainConfig, part: str, images_seen: int, progress: float) -> float:
    """Returns the factor of a part's learning rate in the step that begins after `images_seen` images.

    Args:
        config: which schedule.
        part: a component, or embeddings, which follow the text encoders' schedule.
        images_seen: images of the run before the step.
        progress: share of the run that is done.
    """
    name = config.lr_scheduler
    if part == _EMBEDDINGS or is_text_encoder(part):
        name = config.text_encoder_lr_scheduler or name
    scheduler = LR_SCHEDULERS[name]
    step_images = config.batch_size * config.gradient_accumulation_steps
    warmup = min(1.0, (images_seen + step_images) / config.lr_warmup_images) if config.lr_warmup_images else 1.0
    return warmup * scheduler(progress, config.lr_scheduler_num_cycles, config.lr_scheduler_power)


class Optimizer:
    """Moves parameters along their gradients.

    Args:
        parts: the parameters of components, and of the embeddings of new words.
        config: which optimizer, with which rate and weight decay for each part.

    Raises:
        UserError: the optimizer is not installed.
    """

    def __init__(self, parts: Mapping[str, Sequence[nn.Parameter]], config: TrainConfig) -> None:
        self.config = config
        self.parts = list(parts)
        self.parameters = [parameter for part in parts.values() for parameter in part]
        self.kind = OPTIMIZERS[config.optimizer]
        needs_copies = self.kind.takes_matrices or any(p.dtype != torch.float32 for p in self.parameters)
        self.copies = [nn.Parameter(torch.empty(0, device=p.device)) for p in self.parameters] if needs_copies else None
        optimized = iter(self.copies or self.parameters)
        self.learning_rates = {part: _learning_rate(config, part) for part in parts}
        param_groups = [
            {
                "params": [next(optimized) for _ in group],
                "lr": self.learning_rates[part],
                "weight_decay": _weight_decay(config, part),
            }
            for part, group in parts.items()
        ]
        self.inner = self.kind.make(param_groups, (config.beta1, config.beta2), config.epsilon)
        self.factor = 1.0
        """Of all learning rates, beside their schedules."""
        self.images_seen = 0
        self._generator = torch.Generator(self.parameters[0].device)

    def begin(self, images_seen: int, progress: float) -> None:
        """Sets the learning rates of the step that begins after `images_seen` images; see `lr_factor`."""
        self.images_seen = images_seen
        for part, group in zip(self.parts, self.inner.param_groups, strict=True):
            group["lr"] = self.factor * self.learning_rates[part] * lr_factor(self.config, part, images_seen, progress)

    @torch.no_grad()
    def step(self, images_seen: int, progress: float) -> None:
        """Takes the step that begins after `images_seen` images, and clears the gradients; see `begin`."""
        self.begin(images_seen, progress)
        if self.copies is None:
            self.inner.step()
            self.inner.zero_grad(set_to_none=True)
            return
        for chunk in _chunks(self.parameters):
            self._step_chunk(self.copies, chunk)

    @torch.no_grad()
    def step_alone(self, index: int) -> None:
        """Steps one parameter, and clears its gradient; all of them make up the step that has begun, to the same bits.

        Args:
            index: of the parameter.
        """
        groups, begin = self.inner.param_groups, 0
        group = next(group for group in groups if (begin := begin + len(group["params"])) > index)
        self.inner.param_groups = [{**group, "params": [(self.copies or self.parameters)[index]]}]
        try:
            if self.copies is None:
                self.inner.step()
                self.parameters[index].grad = None
            else:
                self._step_chunk(self.copies, range(index, index + 1))
        finally:
            self.inner.param_groups = groups

    @property
    def learning_rate(self) -> float:
        """The learning rate of the first group in the last step, or the one that the optimizer estimated."""
        group = self.inner.param_groups[0]
        rate: float = group["lr"]
        return rate * group["d"] if self.kind.estimates_rate else rate

    @torch.no_grad()
    def average(self) -> list[Tensor] | None:
        """Computes the averaged weights to use, if the optimizer averages by itself; None for other optimizers."""
        return self.kind.average(self.inner, self.parameters) if self.kind.average else None

    def state_dict(self) -> dict[str, Any]:
        """Returns everything except the parameters."""
        return dict(self.inner.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.inner.load_state_dict(state)

    def _step_chunk(self, copies: list[nn.Parameter], chunk: range) -> None:
        """Steps some of the parameters: their copies hold their values for now, the other copies have no gradient."""
        for index in chunk:
            parameter, copy = self.parameters[index], copies[index]
            if parameter.grad is None:
                continue
            copy.data = as_matrix(parameter.data, parameter).float()
            copy.grad = as_matrix(parameter.grad, parameter).to(copy)
            parameter.grad = None
        self.inner.step()
        for index in chunk:
            parameter, copy = self.parameters[index], copies[index]
            if parameter.dtype != torch.float32 and copy.grad is not None:
                self._generator.manual_seed(stream_key(self.config.seed, "rounding", self.images_seen, index))
                as_matrix(parameter.data, parameter).copy_(round_stochastically(copy.data, self._generator))
            copy.grad = None
            copy.data = torch.empty(0, device=parameter.device)


def _learning_rate(config: TrainConfig, part: str) -> float:
    if part == _EMBEDDINGS:
        return config.embedding_learning_rate
    return config.text_encoder_rate(part) if is_text_encoder(part) else config.learning_rate


def _weight_decay(config: TrainConfig, part: str) -> float:
    if part == _EMBEDDINGS:
        return 0.0
    own = config.text_encoder_weight_decay
    return own if own is not None and is_text_encoder(part) else config.weight_decay


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """Rounds float32 to bfloat16, up or down at random, so that the expected value is the exact one."""
    bits = torch.randint(0, 2**16, values.shape, generator=generator, dtype=torch.int32, device=values.device)
    return ((values.view(torch.int32) + bits) & -(2**16)).view(torch.float32).bfloat16()


def as_matrix(values: Tensor, parameter: Tensor) -> Tensor:
    """Reshapes a convolution's weights or gradient, [out, in, h, w], to [out, in · h · w]; others stay as they are.

    Adafactor keeps a row and a column of a matrix, which saves next to nothing for a 3 × 3 kernel.

    Args:
        values: the parameter or its gradient.
        parameter: its memory format decides the order, so that the matrix of the parameter itself is a view.
    """
    if values.ndim != 4:
        return values
    if not parameter.is_contiguous():  # channels_last
        values = values.permute(0, 2, 3, 1)
    return values.reshape(len(values), -1)


def _chunks(parameters: Sequence[Tensor]) -> Iterator[range]:
    """Divides the parameters into runs of at most CHUNK_ELEMENTS elements (or of one larger parameter)."""
    begin = size = 0
    for index, parameter in enumerate(parameters):
        if size and size + parameter.numel() > CHUNK_ELEMENTS:
            yield range(begin, index)
            begin, size = index, 0
        size += parameter.numel()
    yield range(begin, len(parameters))
