"""The bare step of the benches is the trainer's: it is given as much."""

import torch

from bench.families import TINY, denoiser_arguments
from bench.random_models import random_model


def test_the_bare_step_takes_what_the_trainer_gives() -> None:
    for name, configs in TINY.items():
        model = random_model(name, configs, torch.device("cpu"))
        condition = model.encode(model.tokenize(["a", "b"]), torch.zeros(2, 6))
        bare = denoiser_arguments(model.denoiser, 2)
        more = bare.pop("added_cond_kwargs", {})
        wanted = [each.shape for each in (condition.states, condition.pooled, condition.sizes) if each is not None]
        assert [each.shape for each in (*bare.values(), *more.values())] == wanted, name
