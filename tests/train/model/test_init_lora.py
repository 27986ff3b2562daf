"""Adapters begin as a LoRA file has them: of any program, of a smaller rank, of another alpha."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamloom.base.errors import UserError
from dreamloom.base.versions import RUN
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.config import as_trained
from dreamloom.train.evaluate.evaluate import evaluate
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export
from dreamloom.train.export.lora_files import KOHYA_FILE, PEFT_FILE
from dreamloom.train.families.opening import load_model
from dreamloom.train.loop.loop import train
from dreamloom.train.model.lora import adapter_state_dict, add_adapters
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Text
from dreamloom.train.model.trainable import trainable_parameters
from dreamloom.train.run.folder import train_recipe

Config = Callable[..., TrainConfig]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_base: str, folder: Path, config: Config) -> Path:
    """The LoRA files of a short run of rank 3 and alpha 6."""
    rates = {"learning_rate": 1e-2, "text_encoder_learning_rate": 1e-2}
    place = tmp_path_factory.mktemp("lora")
    settings = config(base=tiny_base, lora_rank=3, lora_alpha=6, max_train_steps=4, **rates)
    assert train(folder, place / "run", settings).finished
    return Path(export(place / "run", place / "model", ExportConfig(dtype="fp32", merge_lora=False)).folder)


@torch.no_grad()
def predict(model: Model) -> torch.Tensor:
    """The prediction for a fixed input."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 200, (2, 24), generator=generator)
    noisy = torch.randn(2, 4, 8, 8, generator=generator)
    return model.predict(noisy, torch.tensor([10, 700]), model.encode(Text({"text_encoder": {"tokens": tokens}})))


def start(base: str, config: TrainConfig) -> Model:
    """A model as a run has it before its first step."""
    model = load_model(base, CPU)
    trainable_parameters(model, config)
    return model


def with_names_of(release: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames the tensors of diffusers' file as older releases had them."""
    down, up = {"0.18": ("lora.down", "lora.up"), "0.20": ("lora_linear_layer.down", "lora_linear_layer.up")}[release]
    return {name.replace("lora_A", down).replace("lora_B", up): value for name, value in tensors.items()}


def test_a_run_goes_on_with_the_bits_of_its_own_file(exported: Path, tiny_base: str, config: Config) -> None:
    settings = config(base=tiny_base, lora_rank=3, lora_alpha=6)
    started = adapter_state_dict(start(tiny_base, settings.model_copy(update={"init_lora": exported / PEFT_FILE})))
    stored = {n.replace("text_model.", ""): value for n, value in load_file(exported / PEFT_FILE).items()}
    assert {n.replace("text_model.", "") for n in started} == stored.keys()
    assert all(torch.equal(value, stored[name.replace("text_model.", "")]) for name, value in started.items())


@pytest.mark.parametrize("name", [KOHYA_FILE, PEFT_FILE])
@pytest.mark.parametrize(("rank", "alpha"), [(3, 6), (3, 1), (8, None)])
def test_adapters_predict_as_the_files_do(
    name: str, rank: int, alpha: int | None, exported: Path, tiny_base: str, config: Config
) -> None:
    expected = predict(start(tiny_base, config(lora_rank=3, lora_alpha=6, init_lora=exported / KOHYA_FILE)))
    model = start(tiny_base, config(lora_rank=rank, lora_alpha=alpha, init_lora=exported / name))
    assert torch.allclose(predict(model), expected, atol=1e-5)
    assert not torch.allclose(expected, predict(load_model(tiny_base, CPU)), atol=1e-3)
    fresh = load_model(tiny_base, CPU)
    add_adapters(fresh, config(lora_rank=rank))
    if rank > 3:  # what is left over can learn
        ours, theirs = adapter_state_dict(model), adapter_state_dict(fresh)
        assert all(torch.equal(ours[n][3:], theirs[n][3:]) for n in ours if ".lora_A." in n)


@pytest.mark.parametrize("release", ["0.18", "0.20"])
def test_files_of_older_releases_of_diffusers(
    release: str, exported: Path, tiny_base: str, tmp_path: Path, config: Config
) -> None:
    """They hold no alpha, which then is the rank."""
    plain = load_file(exported / PEFT_FILE)
    save_file(with_names_of(release, plain), tmp_path / "old.safetensors")
    save_file(plain, tmp_path / "new.safetensors")
    old, new = (
        start(tiny_base, config(lora_rank=3, init_lora=tmp_path / f"{age}.safetensors")) for age in ("old", "new")
    )
    assert torch.equal(predict(old), predict(new))


def test_convolutions_as_kohya_writes_them(exported: Path, tiny_base: str, tmp_path: Path, config: Config) -> None:
    """kohya's proj_in of Stable Diffusion 1 is a 1 × 1 convolution, that of 2 a matrix."""
    tensors = load_file(exported / KOHYA_FILE)
    other = {n: v.flatten(1) if v.ndim == 4 else v[..., None, None] if v.ndim == 2 else v for n, v in tensors.items()}
    save_file(other, tmp_path / "other.safetensors")
    files = (exported / KOHYA_FILE, tmp_path / "other.safetensors")
    ours, theirs = (predict(start(tiny_base, config(lora_rank=3, init_lora=file))) for file in files)
    assert torch.equal(ours, theirs)


def test_what_is_no_such_lora_is_told(exported: Path, tiny_base: str, tmp_path: Path, config: Config) -> None:
    tensors = load_file(exported / KOHYA_FILE)
    file = tmp_path / "lora.safetensors"

    def explain(changed: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, **settings: Any) -> str:
        save_file(changed, file, metadata)
        with pytest.raises(UserError) as caught:
            start(tiny_base, config(**{"lora_rank": 3, "init_lora": file, **settings}))
        return str(caught.value)

    name = next(n for n in tensors if n.endswith("lora_down.weight"))
    assert "rank 3, above lora_rank 2; set lora_rank to 3" in explain(tensors, lora_rank=2)
    dora = {**tensors, name.replace("lora_down.weight", "dora_scale"): torch.ones(3)}
    assert "is a DoRA, and lora_kind is lora; set lora_kind to dora" in explain(dora)
    assert "half an adapter" in explain({n: value for n, value in tensors.items() if n != name})
    moved = {n.replace("attn1_to_q", "attn7_to_q"): value for n, value in tensors.items()}
    assert "attn7_to_q, which gets no adapter here" in explain(moved)
    assert "set text_encoder_learning_rate" in explain(tensors, text_encoder_learning_rate=0)
    assert "another shape" in explain({**tensors, name: torch.zeros(3, 7)})
    assert "is empty" in explain({})
    peft = load_file(exported / PEFT_FILE)
    assert "unet.use_rslora" in explain(peft, {"lora_adapter_metadata": '{"unet.use_rslora": true}'})
    file.write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a safetensors file"):
        start(tiny_base, config(lora_rank=3, init_lora=file))
    with pytest.raises(ValueError, match="init_lora needs lora_rank"):
        config(init_lora=file)


def test_a_lora_of_another_family_is_told(bases: Callable[[str], str], tmp_path: Path, config: Config) -> None:
    file = tmp_path / "lora.safetensors"
    for name in ("lora_te3_encoder_block_0_layer_0_SelfAttention_q", "lora_unet_input_blocks_4_1_proj_in"):
        save_file({f"{name}.lora_down.weight": torch.zeros(1, 4), f"{name}.lora_up.weight": torch.zeros(4, 1)}, file)
        with pytest.raises(UserError, match=f"{name}, which gets no adapter here"):
            start(bases("sd3"), config(lora_rank=1, init_lora=file))


def test_a_refused_file_leaves_no_run(
    exported: Path, tiny_base: str, folder: Path, tmp_path: Path, config: Config
) -> None:
    with pytest.raises(UserError, match="lora_rank"):
        train(folder, tmp_path / "run", config(base=tiny_base, lora_rank=2, init_lora=exported / KOHYA_FILE))
    assert not (tmp_path / "run").exists()


def test_the_recipe_knows_the_file_by_its_content(
    exported: Path, tiny_base: str, tmp_path: Path, config: Config
) -> None:
    file = tmp_path / "moved.safetensors"
    file.write_bytes((exported / KOHYA_FILE).read_bytes())
    here, there = (config(base=tiny_base, lora_rank=3, init_lora=each) for each in (exported / KOHYA_FILE, file))
    assert train_recipe(here, []) == train_recipe(there, []) != train_recipe(config(base=tiny_base, lora_rank=3), [])
    tensors = load_file(file)
    save_file({name: value + 1 for name, value in tensors.items()}, file)
    assert train_recipe(there, []) != train_recipe(here, [])


def test_learned_and_forgotten_count_from_the_base_itself(
    exported: Path, tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    settings = config(base=tiny_base, lora_rank=3, init_lora=exported / KOHYA_FILE, max_train_steps=1)
    assert train(folder, tmp_path / "run", settings, heldout).finished
    point = RUN.read_json(tmp_path / "run" / "evaluation.json")["points"]
    assert point[0]["learned"]["change"] != 0  # the file's adapters already differ from the base
    anew = as_trained(settings).model_copy(update={"use_ema": False})  # not what the run has stored
    again = evaluate(tmp_path / "run", tiny_base, heldout, anew)
    assert again.learned and again.learned.change == pytest.approx(point[-1]["learned"]["change"], abs=1e-4)
