"""The estimate of memory: its parts add up as they must, and each preset fits into the GPU that it is named for."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from dreamloom.train.config import PRESETS, TrainConfig
from dreamloom.train.families.files import infer_component_config
from dreamloom.train.families.memory import CUDA_CONTEXT_BYTES, MemoryEstimate, estimate_memory
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.sd.configs import CROSS_ATTENTION_KEY
from dreamloom.train.model.lora import add_adapters


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A diffusers folder of Stable Diffusion 1.5 whose weight files hold their headers alone."""
    root = tmp_path_factory.mktemp("sd15")
    tensors = {CROSS_ATTENTION_KEY: (320, 768), "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
    configs = {part: infer_component_config(root, tensors, part) for part in ("unet", "vae", "text_encoder")}
    with torch.device("meta"):
        modules: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(configs["unet"]),
            "vae": AutoencoderKL.from_config(configs["vae"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig.from_dict(configs["text_encoder"])),
        }
    for part, module in modules.items():
        tensor_headers = {
            n: {"dtype": "F32", "shape": [*t.shape], "data_offsets": [0, 0]} for n, t in module.state_dict().items()
        }
        header = json.dumps(tensor_headers).encode()
        (root / part).mkdir()
        (root / part / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        (root / part / "config.json").write_text(json.dumps({"layers_per_block": 2, **configs[part]}))
    (root / "model_index.json").write_text(json.dumps({part: ["", ""] for part in modules}))
    return str(root)


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_fits_into_its_gpu(preset: str, stable_diffusion: str) -> None:
    config = TrainConfig.model_validate({"base": stable_diffusion, "preset": preset})
    estimate = estimate_memory(config)
    assert estimate is not None and estimate.total < 0.95 * int(preset.removesuffix("gb")) * 2**30
    assert all(getattr(config, name) == value for name, value in PRESETS[preset].items())


def test_what_is_given_wins_over_the_preset(stable_diffusion: str) -> None:
    config = TrainConfig.model_validate({"preset": "8gb", "batch_size": 7, "optimizer": "adamw"})
    assert (config.batch_size, config.optimizer, config.weight_dtype, config.precision) == (7, "adamw", "bf16", "bf16")
    estimate = estimate_memory(config.model_copy(update={"base": stable_diffusion}))
    assert estimate is not None and estimate.total > 8 * 2**30


def test_the_parts_are_what_they_say(stable_diffusion: str) -> None:
    def of(**changes: Any) -> Any:
        estimate = estimate_memory(
            TrainConfig.model_validate({"base": stable_diffusion, "precision": "fp32", **changes})
        )
        assert estimate is not None
        return estimate

    plain = of()
    unet_and_text = 859_520_964 + 123_060_480
    assert plain.gradients == 4 * unet_and_text and plain.optimizer == 8 * unet_and_text
    assert of(text_encoder_learning_rate=0).gradients == 4 * 859_520_964
    assert of(ema_half_life_images=100).ema == 4 * unet_and_text and plain.ema == 0
    assert of(batch_size=8).activations == 2 * plain.activations
    assert of(gradient_checkpointing=True).activations < plain.activations / 2
    assert estimate_memory(TrainConfig(base="owner/on-the-hub")) is None


def test_adapters_are_counted(tiny_base: str) -> None:
    config = TrainConfig(base=tiny_base, lora_rank=3)
    model = load_model(tiny_base, torch.device("cpu"))
    add_adapters(model, config)
    names = [(n, p) for part in (model.denoiser, model.components["text_encoder"]) for n, p in part.named_parameters()]
    estimate = estimate_memory(config)
    assert estimate is not None and estimate.gradients == 4 * sum(p.numel() for n, p in names if ".lora_" in n)


def test_what_takes_the_most_is_named_as_that() -> None:
    estimate = MemoryEstimate(
        weights=300, gradients=500, optimizer=400, ema=0, activations=CUDA_CONTEXT_BYTES - 1, trained=0, encoder=0
    )
    assert estimate.describe() == "about 1.5 GiB of GPU memory, the most for CUDA itself (0.7 GiB)"
    assert "the most for activations" in replace(estimate, activations=CUDA_CONTEXT_BYTES + 1).describe()
