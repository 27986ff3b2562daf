"""LoRA: the adapters alone learn, and diffusers itself reads back what was trained, from both files and merged."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export
from dreamloom.train.export.lora_files import KOHYA_FILE, PEFT_FILE, to_kohya_keys
from dreamloom.train.export.metadata import adapter_metadata
from dreamloom.train.families.check import check_models
from dreamloom.train.families.opening import load_model
from dreamloom.train.loop.loop import train
from dreamloom.train.model.lora import add_adapters, merge_adapters
from dreamloom.train.model.model import Model
from dreamloom.train.model.safetensors_header import read_metadata
from dreamloom.train.model.trainable import trainable_parameters
from dreamloom.train.run.find import find_trained_model
from dreamloom.train.run.folder import list_checkpoints, read_settings

Config = Callable[..., TrainConfig]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: str, folder: Path, config: Config) -> Path:
    """A short run of adapters in UNet and text encoder, whose strength is not their rank, stopped in between."""
    run = tmp_path_factory.mktemp("lora") / "run"
    settings = config(
        base=tiny_base,
        lora_rank=3,
        lora_alpha=6,
        learning_rate=1e-2,
        text_encoder_learning_rate=1e-2,
        max_train_steps=4,
    )
    assert train(folder, run, settings).finished
    return run


@pytest.mark.slow
def test_a_lora_that_was_stopped_goes_on_to_the_same_bits(
    trained: Path, tiny_base: str, folder: Path, tmp_path: Path
) -> None:
    config = read_settings(trained)["config"]

    def stop(done: int, total: int | None, note: str = "") -> None:
        if "images/s" in note and done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    assert not train(folder, tmp_path / "run", TrainConfig.model_validate(config), progress=stop).finished
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["4"]
    assert train(folder, tmp_path / "run", TrainConfig.model_validate(config)).finished
    ours, theirs = (load_file(list_checkpoints(run)[-1] / "weights.safetensors") for run in (tmp_path / "run", trained))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@torch.no_grad()
def predict(unet: Any, text_encoder: Any) -> torch.Tensor:
    """The prediction for a fixed input."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 200, (2, 24), generator=generator)
    noisy = torch.randn(2, 4, 8, 8, generator=generator)
    predicted: torch.Tensor = unet(noisy, torch.tensor([10, 700]), text_encoder(tokens)[0]).sample
    return predicted


def of(model: Model) -> torch.Tensor:
    return predict(model.denoiser, model.components["text_encoder"])


def test_adapters_change_nothing_at_first_and_begin_alike(tiny_base: str, config: Config) -> None:
    plain, first, second = (load_model(tiny_base, CPU) for _ in range(3))
    torch.manual_seed(5)
    add_adapters(first, config(lora_rank=4))
    torch.manual_seed(6)
    add_adapters(second, config(lora_rank=4))
    assert torch.equal(of(first), of(plain))
    started = dict(first.denoiser.named_parameters())
    assert all(torch.equal(started[name], value) for name, value in second.denoiser.named_parameters())
    matrix = next(value for name, value in started.items() if ".lora_A." in name)
    assert matrix.std() == pytest.approx((3 * matrix.shape[1]) ** -0.5, rel=0.2)


def test_the_adapters_alone_learn(trained: Path, tiny_base: str) -> None:
    weights = load_file(list_checkpoints(trained)[-1] / "weights.safetensors")
    assert weights and all(".lora_" in name for name in weights)
    assert {name.split(".")[0] for name in weights} == {"unet", "text_encoder"}
    model = find_trained_model(trained).load(load_model(tiny_base, CPU), use_ema=True)
    before = load_model(tiny_base, CPU).denoiser.state_dict()
    after = {name.replace(".base_layer", ""): value for name, value in model.denoiser.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.allclose(of(model), of(load_model(tiny_base, CPU)), atol=1e-2)


@pytest.mark.slow
def test_diffusers_reads_both_files_and_the_merged_model(trained: Path, tiny_base: str, tmp_path: Path) -> None:
    exported = Path(export(trained, tmp_path / "model", ExportConfig(dtype="fp32")).folder)
    expected = of(find_trained_model(trained).load(load_model(tiny_base, CPU), use_ema=True))
    merged = StableDiffusionPipeline.from_pretrained(exported)
    assert torch.allclose(predict(merged.unet, merged.text_encoder), expected, atol=1e-5)
    for name in (KOHYA_FILE, PEFT_FILE):
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_base)
        pipeline.load_lora_weights(exported, weight_name=name)
        assert torch.allclose(predict(pipeline.unet, pipeline.text_encoder), expected, atol=1e-5), name


def test_an_export_may_be_the_adapters_alone(trained: Path, tmp_path: Path) -> None:
    exported = Path(export(trained, tmp_path / "model", ExportConfig(merge_lora=False)).folder)
    beside = {"dreamloom.json", "README.md", "samples.png"}
    assert {file.name for file in exported.iterdir()} == {KOHYA_FILE, PEFT_FILE, *beside}
    assert all(value.dtype == torch.float16 for value in load_file(exported / KOHYA_FILE).values())
    metadata = read_metadata(exported / KOHYA_FILE)
    assert metadata["modelspec.hash_sha256"] == f"0x{metadata['sshs_model_hash']}"
    assert metadata["sshs_model_hash"] != "0" * 64 and metadata["ss_output_name"] == "run"


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_kohyas_metadata_tells_the_versions_apart(
    act: str, prediction_type: str, tiny_base: str, tmp_path: Path, config: Config
) -> None:
    model = load_model(tiny_base, CPU, prediction_type=prediction_type)
    model.components["text_encoder"].config.hidden_act = act
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "state.json").touch()
    metadata = adapter_metadata(model, config(base=tiny_base, lora_rank=3, lora_alpha=6), tmp_path / "1", "A thing")
    is_2, is_v = act == "gelu", prediction_type == "v_prediction"
    assert metadata["ss_v2"] == str(is_2), "A1111 takes it for Stable Diffusion 2's by this word"
    assert metadata["ss_base_model_version"] == ("sd_v2" if is_2 else "sd_v1") + ("_v" if is_v else "")
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("3", "6")
    assert metadata["ss_output_name"] == metadata["modelspec.title"] == "A thing"
    assert metadata["modelspec.architecture"].startswith("stable-diffusion-v2" if is_2 else "stable-diffusion-v1")
    assert metadata["modelspec.architecture"].endswith("/lora")
    assert metadata["modelspec.prediction_type"] == ("v" if is_v else "epsilon")


def test_merged_is_what_the_adapters_say(tiny_base: str, config: Config) -> None:
    model = load_model(tiny_base, CPU)
    add_adapters(model, config(lora_rank=2, lora_alpha=5))
    generator = torch.Generator().manual_seed(0)
    for module in (model.denoiser, model.components["text_encoder"]):
        for name, parameter in module.named_parameters():
            if ".lora_B." in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    expected = of(model)
    merge_adapters(model)
    assert torch.allclose(of(model), expected, atol=1e-4)
    assert model.denoiser.state_dict().keys() == load_model(tiny_base, CPU).denoiser.state_dict().keys()


def test_names_are_those_of_kohyas_scripts(tiny_base: str) -> None:
    down, up = torch.zeros(2, 4), torch.zeros(4, 2)
    renamed = to_kohya_keys(
        load_model(tiny_base, CPU),
        {
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight": down,
            "text_encoder.encoder.layers.0.mlp.fc1.lora_B.weight": up,
        },
        TrainConfig(lora_rank=2, lora_alpha=4),
    )
    assert renamed.keys() == {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0.alpha",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha",
    }
    assert renamed["lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"] == 4


def test_what_is_frozen_does_not_learn(tiny_base: str, config: Config) -> None:
    model = load_model(tiny_base, CPU)
    parameters = trainable_parameters(model, config(frozen=["unet.down_blocks.*", "text_encoder.embeddings.*"]))
    names = {name for part in parameters.values() for name in part}
    assert any(name.startswith("unet.up_blocks") for name in names)
    assert not any(name.startswith(("unet.down_blocks.", "text_encoder.embeddings.")) for name in names)
    assert not model.denoiser.down_blocks[0].resnets[0].conv1.weight.requires_grad
    for pattern, message in [
        ("unet.down_blocks.9.*", r"unet\.down_blocks\.9.* near ones are unet\.down_blocks\.[01]"),
        ("text_encoder.encoder.layer.1.*", r"near ones are text_encoder\.text_model\.encoder\.layers\.[01]"),
        ("down_blocks.*", "near ones are unet"),
    ]:
        with pytest.raises(UserError, match=message):
            trainable_parameters(load_model(tiny_base, CPU), config(frozen=[pattern]))
        with pytest.raises(UserError, match=message):  # known from the files alone, before anything is loaded
            check_models(config(base=tiny_base, frozen=[pattern]))
    with pytest.raises(UserError, match="text_encoder is not trained at all"):
        trainable_parameters(
            load_model(tiny_base, CPU), config(frozen=["text_encoder.*"], text_encoder_learning_rate=0)
        )
    with pytest.raises(UserError, match="nothing to train"):
        trainable_parameters(load_model(tiny_base, CPU), config(frozen=["*"]))


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_layers_are_frozen_by_the_names_of_their_files(lora_rank: int | None, tiny_base: str, config: Config) -> None:
    """The files are older than the names that an installed release of transformers or peft uses in memory."""
    files = {
        "unet": Path(tiny_base, "unet", "diffusion_pytorch_model.safetensors"),
        "text_encoder": Path(tiny_base, "text_encoder", "model.safetensors"),
    }
    for pattern in (
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.weight",
        "text_encoder.encoder.layers.0.self_attn.q_proj.weight",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",
    ):
        part, _, inside = pattern.partition(".")
        names = {name.removeprefix("text_model.") for name in load_file(files[part])}
        assert inside.removeprefix("text_model.") in names
        free = trainable_parameters(load_model(tiny_base, CPU), config(lora_rank=lora_rank))
        left = trainable_parameters(load_model(tiny_base, CPU), config(lora_rank=lora_rank, frozen=[pattern]))
        assert len(free[part]) - len(left[part]) == (1 if lora_rank is None else 2), pattern
        check_models(config(base=tiny_base, lora_rank=lora_rank, frozen=[pattern]))


def test_adapters_have_rates_of_their_own() -> None:
    assert (TrainConfig(lora_rank=4).learning_rate, TrainConfig(lora_rank=4).text_encoder_learning_rate) == (1e-4, 5e-5)
    assert TrainConfig(lora_rank=4, learning_rate=3e-4).learning_rate == 3e-4
    assert TrainConfig().learning_rate == 2e-6
