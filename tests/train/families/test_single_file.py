"""Models in one file: opened without running their code, and the same to the last bit as diffusers opens them."""

import io
import pickle
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export
from dreamloom.train.families.check import check_models
from dreamloom.train.families.files import infer_component_config, read_component_config
from dreamloom.train.families.opening import load_model
from dreamloom.train.families.parts import load_checkpoint_file
from dreamloom.train.families.sd.configs import CROSS_ATTENTION_KEY
from dreamloom.train.families.sd.family import SD
from dreamloom.train.families.sd.original_keys import OPEN_CLIP, from_original_keys, to_original_keys
from dreamloom.train.loop.loop import train
from dreamloom.train.model.checkpoint_file import read_state_dict
from tests.train.conftest import tokens_of

Config = Callable[..., TrainConfig]
CPU = torch.device("cpu")
UNUSED = {"text_projection", "logit_scale"}
"""What open_clip's text encoder has outside its layers, and Stable Diffusion 2 does not use."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_base: str, folder: Path, config: Config) -> Path:
    """An export in fp32: a diffusers folder with the single file in it."""
    root = tmp_path_factory.mktemp("exported")
    train(folder, root / "run", config(base=tiny_base, max_train_steps=1))
    return Path(export(root / "run", root / "model", ExportConfig(dtype="fp32")).folder)


def same(module: Any, other: Any) -> bool:
    ours, theirs = module.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_a_file_opens_to_the_bits_that_diffusers_finds_in_it(exported: Path) -> None:
    ours = load_model(str(exported / "model.safetensors"), CPU)
    theirs = StableDiffusionPipeline.from_single_file(
        str(exported / "model.safetensors"), config=str(exported), local_files_only=True
    )
    for part in ("unet", "vae", "text_encoder"):
        assert same(ours.components[part], getattr(theirs, part)), part
    tokens = [tokens_of(model.tokenize(["a thing"])) for model in (ours, load_model(str(exported), CPU))]
    assert torch.equal(*tokens)
    assert ours.prediction_type == "epsilon"


@pytest.mark.slow
def test_training_starts_from_a_file_and_ends_as_from_its_folder(
    exported: Path, folder: Path, tmp_path: Path, config: Config
) -> None:
    ends = []
    for name, base in (("file", exported / "model.safetensors"), ("folder", exported)):
        train(folder, tmp_path / name, config(base=str(base), max_train_steps=2))
        summary = export(tmp_path / name, tmp_path / f"{name}-model", ExportConfig(dtype="fp32"))
        assert summary.single_file
        ends.append(load_file(summary.single_file))
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


class Callback:
    """What Lightning's checkpoints are full of."""

    ran = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import builtins; builtins.dreamloom_was_here = 1",))


def test_a_ckpt_is_read_and_nothing_in_it_is_run(exported: Path, tmp_path: Path) -> None:
    import builtins

    for file in ("model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        source = exported / file
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / file)
    weights = load_file(exported / "model.safetensors")
    torch.save(
        {"state_dict": weights, "callbacks": {Callback: [Callback()]}, "epoch": 3, "size": torch.Size([2])},
        tmp_path / "model.ckpt",
    )
    state_dict = read_state_dict(tmp_path / "model.ckpt")
    assert not hasattr(builtins, "dreamloom_was_here")
    assert state_dict.keys() == weights.keys() and all(torch.equal(state_dict[key], weights[key]) for key in weights)
    ours = load_model(str(tmp_path / "model.ckpt"), CPU)
    assert same(ours.denoiser, load_model(str(exported), CPU).denoiser)


def test_a_ckpt_that_is_two_things_at_once_or_cut_short_is_refused(tmp_path: Path) -> None:
    """zipfile finds an archive by its end, torch by its beginning: what lies before it would be read as a pickle."""
    import builtins

    archive = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, archive)
    (tmp_path / "both.ckpt").write_bytes(pickle.dumps(Callback()) + archive.getvalue())
    (tmp_path / "half.ckpt").write_bytes(archive.getvalue()[:-100])
    for name, message in [("both.ckpt", "from before torch 1.6"), ("half.ckpt", "copy it again")]:
        with pytest.raises(UserError, match=message):
            read_state_dict(tmp_path / name)
    assert not hasattr(builtins, "dreamloom_was_here")


ASKS_FOR_GIGABYTES = {
    "memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "memo of few": b"\x80\x02Nq\xffr\xff\xff\xff\x0f.",
    "bytes": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"..",
    "text": b"\x80\x02X\xff\xff\xff\x7f.......",
    "number": b"\x80\x02\x8b\xff\xff\xff\x7f.....",
    "frame": b"\x80\x04\x95" + (2**50).to_bytes(8, "little") + b"N.",
    "nested": b"\x80\x02" + b"(" * 90_000 + b".",
}


@pytest.mark.parametrize("pickled", ASKS_FOR_GIGABYTES.values(), ids=ASKS_FOR_GIGABYTES)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, None])
def test_a_ckpt_that_asks_for_gigabytes_is_refused(pickled: bytes, compression: int | None, tmp_path: Path) -> None:
    file = tmp_path / "x.ckpt"
    if compression is None:
        file.write_bytes(pickled)
    else:
        with zipfile.ZipFile(file, "w", compression) as archive:
            archive.writestr("x/version", "3")
            archive.writestr("x/data.pkl", pickled)
            archive.writestr("x/byteorder", "little")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"x\.ckpt"):
            read_state_dict(file)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def test_a_folder_of_half_precision_files_opens(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "half")
    for part in ("unet", "vae", "text_encoder"):
        for file in (tmp_path / "half" / part).glob("*.safetensors"):
            file.rename(file.with_suffix(".fp16.safetensors"))
    ours, theirs = load_model(str(tmp_path / "half"), CPU), load_model(str(exported), CPU)
    for part in ("unet", "vae", "text_encoder"):
        assert same(ours.components[part], theirs.components[part]), part


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_weights_that_a_folder_lacks_are_not_made_up(component: str, exported: Path, tmp_path: Path) -> None:
    """transformers fills them with random numbers, and only warns."""
    shutil.copytree(exported, tmp_path / "model")
    (file,) = (tmp_path / "model" / component).glob("*.safetensors")
    weights = load_file(file)
    first, second, *_ = sorted(weights)
    save_file({name: value for name, value in weights.items() if name not in (first, second)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=rf"{component} lacks the weights .* and 1 more; copy the model again"):
        load_model(str(tmp_path / "model"), CPU)


def test_a_scheduler_that_diffusers_does_not_know_is_the_users_error(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "model")
    (tmp_path / "model" / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "OldScheduler"}')
    with pytest.raises(UserError, match="is OldScheduler, which diffusers does not know"):
        load_model(str(tmp_path / "model"), CPU)


def test_what_is_no_model_is_the_users_error(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "half.safetensors").write_bytes((exported / "model.safetensors").read_bytes()[:5000])
    (tmp_path / "image.png").touch()
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name, message in [
        ("model.ckpt", "from before torch 1.6"),
        ("half.safetensors", "not a safetensors file"),
        ("image.png", "not a model"),
        ("other.safetensors", "not a Stable Diffusion"),
    ]:
        with pytest.raises(UserError, match=message):
            check_models(TrainConfig(base=str(tmp_path / name)))
            load_model(str(tmp_path / name), CPU)
    weights = load_file(exported / "model.safetensors")
    del weights["model.diffusion_model.out.2.bias"]
    shutil.copytree(exported, tmp_path / "folder")
    save_file(weights, tmp_path / "folder" / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks 'model\.diffusion_model\.out\.2\.bias'"):
        load_checkpoint_file(tmp_path / "folder" / "model.safetensors")


@pytest.mark.parametrize(("width", "count"), [(768, 686), (1024, 686)])
def test_stable_diffusion_1_and_2_are_known_by_their_tensors(width: int, count: int, tmp_path: Path) -> None:
    """Built without memory, their tensors have the names and shapes of the files that are in use."""
    tensors = {CROSS_ATTENTION_KEY: (320, width), "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3)}
    configs = {part: infer_component_config(tmp_path, tensors, part) for part in ("unet", "vae", "text_encoder")}
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(configs["unet"]).state_dict()
        vae = AutoencoderKL.from_config(configs["vae"]).state_dict()
        text = CLIPTextModel(CLIPTextConfig.from_dict(configs["text_encoder"])).state_dict()
    assert len(unet) == count
    file = to_original_keys(unet, vae, text, open_clip=width == 1024)
    assert file[CROSS_ATTENTION_KEY].shape == (320, width)
    assert file["model.diffusion_model.output_blocks.11.0.in_layers.2.weight"].shape == (320, 640, 3, 3)
    assert file["first_stage_model.decoder.conv_in.weight"].shape == (512, 4, 3, 3)
    if width == 768:
        assert file["model.diffusion_model.middle_block.1.proj_in.weight"].shape == (1280, 1280, 1, 1)
        assert file["cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.weight"].shape == (3072, 768)
    else:
        assert file["model.diffusion_model.middle_block.1.proj_in.weight"].shape == (1280, 1280)
        block = "cond_stage_model.model.transformer.resblocks.22"
        assert file[f"{block}.attn.in_proj_weight"].shape == (3072, 1024)
        unused = {key.removeprefix(OPEN_CLIP) for key in file if "resblocks.23." in key or key.split(".")[-1] in UNUSED}
        assert len(unused) == 14 and unused >= set(UNUSED), "kohya's sd-scripts write them, and diffusers 0.32 reads"
        assert file[f"{OPEN_CLIP}text_projection"].shape == (1024, 1024)
    own = {"unet": unet, "vae": vae, "text_encoder": text}
    back = from_original_keys(file, own)
    for part, weights in own.items():
        assert {k: v.shape for k, v in back[part].items()} == {k: v.shape for k, v in weights.items()}


def test_a_file_of_stable_diffusion_2_must_be_told_what_it_predicts(tmp_path: Path) -> None:
    tensors = {
        CROSS_ATTENTION_KEY: torch.zeros(320, 1024),
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1, 4, 3, 3),
    }
    save_file(tensors, tmp_path / "v2.safetensors")
    assert read_component_config(tmp_path / "v2.safetensors", "text_encoder")["num_hidden_layers"] == 23
    with pytest.raises(UserError, match="set prediction"):
        check_models(TrainConfig(base=str(tmp_path / "v2.safetensors")))
    check_models(TrainConfig(base=str(tmp_path / "v2.safetensors"), prediction_type="v_prediction"))


@pytest.mark.parametrize("width", [768, 1024])
def test_what_a_lone_file_says_of_its_prediction_is_read(width: int, tmp_path: Path) -> None:
    tensors = {
        CROSS_ATTENTION_KEY: torch.zeros(320, width),
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1, 4, 3, 3),
    }
    empty = torch.empty(0)

    def predicts(name: str, metadata: dict[str, str] | None = None, beside: str = "", **more: torch.Tensor) -> Any:
        save_file({**tensors, **more}, tmp_path / f"{name}.safetensors", metadata=metadata)
        if beside:
            (tmp_path / f"{name}.yaml").write_text(beside)
        config = read_component_config(tmp_path / f"{name}.safetensors", "scheduler")
        return config["prediction_type"], config.get("rescale_betas_zero_snr", False)

    unsaid = "epsilon" if width == 768 else None
    config = 'model: {params: {parameterization: "v", unet_config: {}}}'
    assert predicts("plain") == (unsaid, False)
    assert predicts("marked", v_pred=empty) == ("v_prediction", False)
    assert predicts("zero", v_pred=empty, ztsnr=empty) == ("v_prediction", True)
    assert predicts("yaml", beside=config) == ("v_prediction", False)
    assert predicts("yaml-zero", beside=config, ztsnr=empty) == ("v_prediction", True)
    assert predicts("noise", beside="model: {params: {unet_config: {}}}", v_pred=empty) == ("epsilon", False)
    assert predicts("other", beside="- no config") == (unsaid, False)
    assert predicts("spec", {"modelspec.prediction_type": "v"}) == ("v_prediction", False)
    assert predicts("version", {"modelspec.architecture": "stable-diffusion-v2-768-v"}) == ("v_prediction", False)
    for number, broken in enumerate(("a: [", "[" * 90_000, "&a" * 600_000)):
        with pytest.raises(UserError, match=rf"broken{number}\.yaml"):
            predicts(f"broken{number}", beside=broken)


@pytest.mark.parametrize("padding", [0, 49407])
def test_the_tokenizer_is_clips(padding: int) -> None:
    ours = SD.file_tokenizers({"text_encoder": {"pad_token_id": padding}})["text_encoder"]
    theirs = SimpleTokenizer()
    for text in ("a photo of a dog", "Ein Haus am See, 4k?", "don't  stop", "naïve café ☕ 東京", "x" * 300):
        token_ids = ours([text], padding="max_length", max_length=77, truncation=True).input_ids[0]
        expected = theirs([text])[0].tolist()
        end = expected.index(49407) + 1
        assert token_ids[:end] == expected[:end], text
        assert set(token_ids[end:]) <= {padding}
