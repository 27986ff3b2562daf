"""A base of few bits, or in the CPU's memory: it predicts (nearly) the same, and adapters learn."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dreamloom.base.errors import UserError
from dreamloom.base.progress import silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.drawings import Drawing
from dreamloom.train.evaluate.sample import draw_images
from dreamloom.train.families.memory import estimate_memory
from dreamloom.train.families.opening import load_base_model
from dreamloom.train.model.lora import adapter_state_dict, add_adapters
from dreamloom.train.model.lora_layers import quantized_layers
from tests.train.conftest import CPU, MakeTrainer

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
    assert stored.parameter_names() == whole.parameter_names()
    moved = []
    for trainer in (whole, stored):
        before = [parameter.clone() for parameter in trainer.parameters]
        for batch in batches[:2]:
            trainer.step([batch])
        moved.append([not torch.equal(*pair) for pair in zip(before, trainer.parameters, strict=True)])
    assert moved[0] == moved[1] and any(moved[0])


@pytest.mark.parametrize(("family", "kind", "precision"), [("sdxl", "lora", "fp32"), ("sd3", "loha", "bf16")])
def test_a_base_in_the_cpus_memory_gives_the_same_bits(
    family: str, kind: str, precision: str, bases: Callable[[str], str], make_trainer: MakeTrainer
) -> None:
    settings = {**SETTINGS, "base": bases(family), "lora_kind": kind, "precision": precision}
    settings |= {"gradient_checkpointing": True}
    (plain, batches), (copied, _) = make_trainer(**settings), make_trainer(**settings, base_on_cpu=True)
    names = [name.replace(".base_layer", "") for name in copied.model.denoiser.state_dict()]
    layer = copied.model.denoiser.get_submodule(quantized_layers(names)[0]).base_layer
    copied.model.denoiser.to("meta")
    assert layer.weight.device == torch.device("cpu"), "it does not move with its model"
    copied, _ = make_trainer(**settings, base_on_cpu=True)
    for batch in batches[:2]:
        plain.step([batch])
        copied.step([batch])
    assert all(torch.equal(*pair) for pair in zip(plain.parameters, copied.parameters, strict=True))


def test_what_is_stored_elsewhere_is_estimated(tiny_base: str) -> None:
    ways: list[dict[str, Any]] = [{}, {"base_bits": 8}, {"base_bits": 4}, {"base_on_cpu": True}]
    estimates = [estimate_memory(TrainConfig(base=tiny_base, lora_rank=2, **way)) for way in ways]
    sizes = [estimate.weights for estimate in estimates if estimate]
    assert len(sizes) == 4 and sizes == sorted(set(sizes), reverse=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_bits": 4, "lora_rank": 2, "lora_kind": "loha"}, "lora or dora"),
        ({"base_on_cpu": True, "lora_rank": 2, "base_bits": 4}, "base_bits null"),
    ],
)
def test_only_adapters_stand_on_such_a_base(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_a_missing_library_is_a_sentence(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # importing it fails, also where it is installed
    with pytest.raises(UserError, match=r"base_bits needs bitsandbytes; pip install bitsandbytes"):
        make_trainer(**SETTINGS, base_bits=4)


@pytest.mark.parametrize(
    ("family", "kind"), [("sd", "lora"), ("sdxl", "loha"), ("sd3", "lokr"), ("sd", "dora"), ("sd3", None)]
)
def test_what_is_drawn_outside_a_run_is_the_same_with_matrices_of_16_bits(
    family: str, kind: str | None, bases: Callable[[str], str], config: Callable[..., TrainConfig]
) -> None:
    """Autocast casts them anyway; a DoRA, which takes their norms, keeps them."""
    settings = config(base=bases(family), precision="bf16", lora_rank=2 if kind else None, lora_kind=kind or "lora")
    drawn = []
    for precision in ("fp32", "bf16"):
        model = load_base_model(settings, bases(family), CPU, precision=precision)
        if kind:
            add_adapters(model, settings)
            generator = torch.Generator().manual_seed(0)
            for parameter in adapter_state_dict(model).values():
                parameter.copy_(torch.rand(parameter.shape, generator=generator))
        drawing = Drawing("a thing", "no", (32, 32), 1, 3.0, None, (0, 0), "")
        drawn.append(np.asarray(draw_images(model, [drawing], settings, silent, "")[0]))
    networks = [model.denoiser, *model.text_encoders.values()]
    matrices = [each for network in networks for each in network.modules() if type(each) is torch.nn.Linear]
    stored = {layer.weight.dtype for layer in matrices if layer.weight.shape[0] > 2 and layer.weight.shape[1] > 2}
    assert stored == {torch.float32 if kind == "dora" else torch.bfloat16}
    assert {parameter.dtype for parameter in model.vae.parameters()} == {torch.float32}
    assert drawn[0].std() > 0 and np.array_equal(drawn[0], drawn[1])
