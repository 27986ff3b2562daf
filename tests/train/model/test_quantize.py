"""A base of few bits: it predicts nearly the same, only adapters learn, and they merge into the whole weights."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.memory import estimate_memory
from dreamloom.train.model.lora_layers import quantized_layers
from tests.train.conftest import MakeTrainer

SETTINGS: dict[str, Any] = {"lora_rank": 2, "text_encoder_learning_rate": 0.0, "min_snr_gamma": None}


@pytest.mark.parametrize(("bits", "family", "kind"), [(4, "sd", "lora"), (4, "sd3", "dora"), (8, "sdxl", "lora")])
def test_adapters_learn_on_a_base_of_few_bits(
    bits: int, family: str, kind: str, bases: Callable[[str], str], make_trainer: MakeTrainer
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed; `make install` brings it")
    settings = {**SETTINGS, "base": bases(family), "lora_kind": kind}
    (whole, batches), (stored, _) = make_trainer(**settings), make_trainer(**settings, base_bits=bits)
    with torch.no_grad():
        expected, found = whole.loss(batches[0]), stored.loss(batches[0])
    assert found != expected and found.item() == pytest.approx(expected.item(), rel=0.05)
    names = [name.replace(".base_layer", "") for name in whole.model.denoiser.state_dict()]
    layers = [stored.model.denoiser.get_submodule(name) for name in quantized_layers(names)]
    matrices = [getattr(layer, "base_layer", layer) for layer in layers]
    few = [layer.weight for layer in matrices if not isinstance(layer, torch.nn.Conv2d)]
    assert few and {weight.dtype for weight in few} <= {torch.uint8, torch.int8}
    before = [parameter.clone() for parameter in stored.parameters]
    assert stored.parameter_names() == whole.parameter_names()
    for batch in batches[:2]:
        stored.step([batch])
    assert all(not torch.equal(*pair) for pair in zip(before, stored.parameters, strict=True))


def test_fewer_bits_are_estimated(tiny_base: str) -> None:
    estimates = [estimate_memory(TrainConfig(base=tiny_base, lora_rank=2, base_bits=bits)) for bits in (None, 8, 4)]
    sizes = [estimate.weights for estimate in estimates if estimate]
    assert len(sizes) == 3 and sizes == sorted(set(sizes), reverse=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"base_bits": 4}, "needs lora_rank"), ({"base_bits": 4, "lora_rank": 2, "lora_kind": "loha"}, "lora or dora")],
)
def test_only_adapters_stand_on_few_bits(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_a_missing_library_is_a_sentence(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # importing it fails, also where it is installed
    with pytest.raises(UserError, match=r"base_bits needs bitsandbytes; install dreamloom\[bitsandbytes\]"):
        make_trainer(**SETTINGS, base_bits=4)
