"""Training as a whole: what is resumed equals what was never stopped, bit for bit."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.data.tensor_store import save_shard
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export
from dreamloom.train.loop import grad_scaler
from dreamloom.train.loop.distributed import SINGLE_PROCESS
from dreamloom.train.loop.faults import explain
from dreamloom.train.loop.loop import train
from dreamloom.train.loop.loss_window import NonFiniteLossError
from dreamloom.train.loop.session import open_session
from dreamloom.train.run.folder import list_checkpoints, read_settings, read_summary
from tests.train.data import test_schedule as schedules

Config = Callable[..., TrainConfig]
HOUSE = Path(__file__).parents[3]

EVERYTHING: dict[str, Any] = {
    "epochs": 2,
    "gradient_accumulation_steps": 2,
    "ema_half_life_images": 4,
    "caption_dropout_rate": 0.3,
    "flip_p": 0.5,
    "crop_jitter": 0.1,
    "crops_per_image": 2,
    "shuffle_tags": True,
    "upscale": False,
    "noise_offset": 0.1,
    "multires_noise_discount": 0.3,
    "input_perturbation": 0.1,
    "lr_scheduler": "cosine",
    "lr_warmup_images": 6,
    "evaluate_every_n_steps": 2,
    "sample_every_n_steps": 3,
    "checkpoints_total_limit": 2,
}
"""Buckets, fillings, a fractional deck, accumulation, an average, dropout, flips, crops, tags that are shuffled, all
noises and a schedule, at once; and control files, several captions and a mask, below."""


@pytest.fixture(scope="module")
def folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training folder, with all of EveryDream's control files, several captions of an image, and a shard."""
    root = tmp_path_factory.mktemp("controlled")
    shutil.copytree(folder, root / "all")
    (root / "all" / "global.yaml").write_text("tags: [photo, small, {tag: smooth, weight: 2}]\n")
    for name, text in {"cond_dropout": "0.1", "loss_scale": "0.5", "batch_id": "ground", "flip_p": "1/4"}.items():
        (root / "all" / "ground" / f"{name}.txt").write_text(text)
    (root / "all" / "own" / "a thing_1.yaml").write_text("multiply: 1.5\nshuffle_tags: false\n")
    several = {"file_name": "a thing_2.png", "text": ["a thing, blue", "something", "a thing that is small"]}
    (root / "all" / "own" / "metadata.jsonl").write_text(json.dumps(several))
    with Image.open(root / "all" / "own" / "a thing_0.png") as image:
        Image.linear_gradient("L").resize(image.size).save(root / "all" / "own" / "a thing_0-masklabel.png")
    with tarfile.open(root / "all" / "own" / "0.tar", "w") as tar:
        tar.add(root / "all" / "own" / "a thing_2.png", "a thing in a shard.png")
    return root / "all"


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: str, folder: Path, heldout: Path, config: Config
) -> Path:
    """A run that nobody stopped."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(folder, run, config(base=tiny_base, **EVERYTHING), heldout).finished
    return run


def outcome(run: Path) -> dict[str, Any]:
    """All that a run leaves behind that does not speak of time."""
    newest = list_checkpoints(run)[-1]
    summary = json.loads((run / "summary.json").read_text())
    for timed in ("images_per_second", "data_wait", "peak_memory", "checkpoint"):
        del summary[timed]
    return {
        **{file.name: file.read_bytes() for file in newest.glob("*.safetensors")},
        "optimizer": torch.load(newest / "optimizer.pt", weights_only=True),
        **{file: (run / file).read_bytes() for file in ("log.jsonl", "evaluation.json", "problems.json")},
        "samples": {file.name: file.read_bytes() for file in (run / "samples").iterdir()},
        "summary": summary,
    }


def assert_same(left: Any, right: Any) -> None:
    """Equal, tensors bit for bit."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(undisturbed: Path) -> None:
    names = {path.name for path in undisturbed.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.json", "checkpoints", "log.jsonl", "logs", "evaluation.json", "learned_forgotten.png", "samples",
        "samples.png", "problems.json", "environments.json", "summary.json", "images.parquet",
    }  # fmt: skip
    summary = read_summary(undisturbed)
    assert summary is not None and summary.finished and summary.problems == 0
    assert summary.learned is not None and summary.learned > 0
    steps = [json.loads(line)["step"] for line in (undisturbed / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, summary.steps + 1))
    assert len(list_checkpoints(undisturbed)) == 2
    points = json.loads((undisturbed / "evaluation.json").read_text())["points"]
    assert points[0]["images_seen"] == 0 and points[0]["learned"]["change"] == 0
    assert points[-1]["images_seen"] == summary.images_seen
    assert any((undisturbed / "logs").iterdir())


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_goes_on_to_the_same_bits(
    undisturbed: Path, tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    run = tmp_path / "run"
    settings = config(base=tiny_base, **EVERYTHING)
    for what, at in [("encoding images", 1), ("evaluating", 3), ("images/s", 4), ("images/s", 12), ("drawing", 0)]:
        assert not train(folder, run, settings, heldout, stopping(what, at)).finished
        assert read_summary(run) is None
    assert train(folder, run, settings, heldout).finished
    assert_same(outcome(run), outcome(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {
            "weight_dtype": "bf16",
            "precision": "bf16",
            "optimizer": "adafactor",
            "ema_half_life_images": 8,
            "ema_warmup": "ramp",
            "ema_update_every_n_steps": 2,
            "gradient_accumulation_steps": 2,
        },
        {
            "lora_rank": 4,
            "loss_type": "mse_huber",
            "clip_skip": 2,
            "embedding_perturbation": 1.0,
            "timestep_curriculum_power": 1.5,
            "initial_min_timestep": 600,
            "optimizer": "schedule_free",
            "text_encoder_learning_rate": 0,
            "pad_color": "#ffffff",
            "flip_p": 0.5,
        },
        {
            "prior_prediction": 0.5,
            "ground_truth": ["ground"],
            "class_preservation": 1.0,
            "concept_word": "thing",
            "class_word": "scene",
            "blank_preservation": 0.5,
            "l2_sp": 0.1,
        },
        {"precision": "fp16", "optimizer": "adafactor", "ema_half_life_images": 8},
    ],
)
def test_other_optimizers_weights_and_objectives_go_on_to_the_same_bits_too(
    tiny_base: str,
    folder: Path,
    tmp_path: Path,
    config: Config,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grad_scaler, "INITIAL_SCALE", 2.0**21)  # fp16 skips some steps before and after the stops
    settings = config(base=tiny_base, epochs=3, max_train_steps=6, latent_cache=tmp_path / "latents", **changes)
    ends = []
    for name, stops in (("whole", []), ("stopped", [4, 9])):
        run = tmp_path / name
        for at in stops:
            assert not train(folder, run, settings, None, stopping("images/s", at)).finished
        assert train(folder, run, settings).finished
        ends.append([file.read_bytes() for file in sorted(list_checkpoints(run)[-1].glob("*.safetensors"))])
        ends[-1].append((run / "log.jsonl").read_bytes())
    assert ends[0] == ends[1]
    skipped = [b'"gradient": null' in line for line in ends[0][-1].splitlines()]
    assert skipped[2] and not skipped[-1] if changes.get("precision") == "fp16" else not any(skipped)


def stopping(what: str, at: int) -> Progress:
    """A progress that sends SIGTERM, as a scheduler would, when the work that it names has come so far."""
    sent = False

    def send(done: int, total: int | None, note: str = "") -> None:
        nonlocal sent
        if what in note and done >= at and not sent:
            sent = True
            os.kill(os.getpid(), signal.SIGTERM)

    return send


KILLER = """
import os, signal, sys
from pathlib import Path
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.loop.loop import train
from dreamloom.train.loop import session  # what takes long to import is imported here, once for all children
import matplotlib.backends.backend_agg, matplotlib.figure, torch.utils.tensorboard
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

def die_at_write(at, root):
    left = at
    def count(event, arguments):
        nonlocal left
        writes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and str(arguments[0]).startswith(root):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)

folder, run, heldout, config = sys.argv[1:]
for at in (3, 17, 35, 50, 61, 1_000_000):
    child = os.fork()
    if child == 0:
        die_at_write(at, str(Path(run).parent))
        train(Path(folder), Path(run), TrainConfig.model_validate_json(config), Path(heldout))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_killed_at_any_write_it_goes_on_to_the_same_bits(
    undisturbed: Path, tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    """Each child is killed, -9, just before its nth write; the next goes on from what it left."""
    settings = config(base=tiny_base, **EVERYTHING).model_dump_json()
    arguments = [str(folder), str(tmp_path / "run"), str(heldout), settings]
    process = subprocess.run(
        [sys.executable, "-c", KILLER, *arguments], stdout=subprocess.PIPE, text=True, cwd=HOUSE, timeout=300
    )
    ends = [int(line) for line in process.stdout.split()]
    assert ends.count(-signal.SIGKILL) >= 4, "most of the moments lie inside a run"
    assert ends[-1] == 0
    assert_same(outcome(tmp_path / "run"), outcome(undisturbed))


@pytest.mark.slow
def test_the_number_of_workers_does_not_matter(
    undisturbed: Path, tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    train(folder, tmp_path / "run", config(base=tiny_base, **{**EVERYTHING, "num_workers": 5}), heldout)
    assert_same(outcome(tmp_path / "run"), outcome(undisturbed))


def test_a_finished_run_is_not_run_again_and_needs_no_torch(
    undisturbed: Path, tiny_base: str, folder: Path, heldout: Path, config: Config
) -> None:
    settings = config(base=tiny_base, **EVERYTHING).model_dump_json()
    code = (
        "import sys; from pathlib import Path; from dreamloom.train.loop.loop import train\n"
        "from dreamloom.train.config import TrainConfig\n"
        f"summary = train(Path({str(folder)!r}), Path({str(undisturbed)!r}),"
        f" TrainConfig.model_validate_json({settings!r}), Path({str(heldout)!r}))\n"
        "print(summary.finished, [m for m in ('torch', 'diffusers', 'matplotlib') if m in sys.modules])"
    )
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOUSE)
    assert process.stdout.strip() == "True []"
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before


def test_a_run_inside_its_own_training_folder_goes_on(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config
) -> None:
    own = shutil.copytree(folder / "own", tmp_path / "own")
    settings = config(base=tiny_base, max_train_steps=2, sample_every_n_steps=1, evaluate_every_n_steps=0)
    first = train(own, own / "run", settings)
    assert list((own / "run" / "samples").iterdir())
    (own / "run" / "summary.json").unlink()  # as if it had been killed
    again = train(own, own / "run", settings)
    assert again.finished and again.dataset_images == first.dataset_images


def test_a_run_knows_its_images_by_their_bytes(
    undisturbed: Path, tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)  # with times of its own
    settings = config(base=tiny_base, **EVERYTHING)
    assert train(copy, undisturbed, settings, heldout).finished
    image = next(file for file in copy.rglob("*") if file.suffix == ".png")
    content = image.read_bytes()
    image.write_bytes(content[:-20] + bytes(8) + content[-12:])  # another image of the same length
    with pytest.raises(UserError, match="other images"):
        train(copy, undisturbed, settings, heldout)


def test_a_run_folder_belongs_to_one_config_and_one_folder(
    undisturbed: Path, tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    with pytest.raises(UserError, match=r"learning_rate 0\.001 instead of 0\.002"):
        train(folder, undisturbed, config(base=tiny_base, **EVERYTHING, learning_rate=2e-3), heldout)
    with pytest.raises(UserError, match="other images"):
        train(heldout / "training", undisturbed, config(base=tiny_base, **EVERYTHING), heldout)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="not a training run"):
        train(folder, tmp_path, config(base=tiny_base), heldout)
    faster = config(
        base=tiny_base,
        **{
            **EVERYTHING,
            "checkpoints_total_limit": 1,
            "log_every_n_steps": 7,
            "checkpoint_every_n_steps": 5,
            "guidance_scale": 1.0,
        },
    )
    run = shutil.copytree(undisturbed, tmp_path / "run")  # in which samples are drawn anew
    assert train(folder, run, faster, heldout).finished, "what is beside the weights makes no other run"


@pytest.mark.slow
def test_a_loss_that_is_no_number_names_the_images_and_keeps_the_checkpoint(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config
) -> None:
    """One image's cached latent turns to NaN while the run rests, its checksum with it."""
    run = tmp_path / "run"
    settings = config(base=tiny_base, epochs=3, log_every_n_steps=50, checkpoint_every_n_steps=100)

    assert not train(folder, run, settings, None, stopping("images/s", 10)).finished
    weights = {file.name: file.read_bytes() for file in list_checkpoints(run)[-1].iterdir()}
    for shard in (tmp_path / ".latents").rglob("*.safetensors"):
        poison(shard)
    with pytest.raises(UserError, match=r"not a number at step \d+ \(images: .*\.png\).*checkpoints/10 is the last"):
        train(folder, run, settings, None)
    assert {file.name: file.read_bytes() for file in list_checkpoints(run)[-1].iterdir()} == weights


def test_a_base_whose_own_loss_is_no_number_is_told_as_that(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    (file,) = (base / "unet").glob("*.safetensors")
    weights = {name: torch.full_like(value, 1e30) for name, value in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"not a number at step 1 .* before anything was learned: the base model"):
        train(folder, tmp_path / "run", config(base=str(base), max_train_steps=1))


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_to_go_on_from(
    undisturbed: Path, tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    run = tmp_path / "run"
    settings = config(base=tiny_base, **EVERYTHING)
    assert not train(folder, run, settings, heldout, stopping("images/s", 8)).finished
    before = {file: file.read_bytes() for file in list_checkpoints(run)[-1].iterdir()}
    weights = len(before[list_checkpoints(run)[-1] / "weights.safetensors"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room, said in [
        (100, "The disk of .* is full; make room"),  # too little for config.json
        (weights // 2, "can't be written .* the last checkpoint is still there"),
        (weights + 1000, "can't be written .* the last checkpoint is still there"),  # too little for the optimizer
    ]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(UserError, match=said):
                train(folder, run, settings, heldout)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {file: file.read_bytes() for file in before} == before
    assert train(folder, run, settings, heldout).finished
    assert_same(outcome(run), outcome(undisturbed))


def test_a_gpu_that_is_full_is_one_sentence(tiny_base: str, folder: Path, tmp_path: Path, config: Config) -> None:
    settings = config(base=tiny_base)
    with (
        pytest.raises(UserError, match=r"memory is full \(by estimate .* GiB are needed\); lower batch"),
        open_session(read_dataset(folder, 32, 8, 1), {}, tmp_path / "run", settings, silent, SINGLE_PROCESS),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def poison(shard: Path) -> None:
    latents = {key: value for key, value in load_file(shard).items() if value.is_floating_point()}
    save_shard(shard, load_file(shard) | {key: torch.full_like(value, torch.nan) for key, value in latents.items()})


def test_a_broken_image_is_left_out_and_named(tiny_base: str, folder: Path, tmp_path: Path, config: Config) -> None:
    mine = tmp_path / "images"
    for name in ("a_1.png", "a_2.png", "b_3.png"):
        (mine / "own").mkdir(parents=True, exist_ok=True)
        (mine / "own" / name).write_bytes((folder / "own" / f"a thing_{name[2]}.png").read_bytes())
    whole = (mine / "own" / "b_3.png").read_bytes()
    (mine / "own" / "b_3.png").write_bytes(whole[: len(whole) // 2])
    summary = train(mine, tmp_path / "run", config(base=tiny_base))
    assert (summary.dataset_images, summary.problems, summary.finished) == (2, 1, True)
    assert json.loads((tmp_path / "run" / "problems.json").read_text()) == {"own/b_3.png": "truncated"}


def test_two_at_once_is_the_users_error(tiny_base: str, folder: Path, tmp_path: Path, config: Config) -> None:
    from dreamloom.base.sharing.folder_lock import lock

    child = os.fork()
    if child == 0:
        with lock(tmp_path / "run"):
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    try:
        with pytest.raises(UserError, match=f"process {child}"):
            train(folder, tmp_path / "run", config(base=tiny_base))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_relative_base_is_found_from_any_folder_and_is_never_a_hub_id_there(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(tiny_base)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a red thing")
    others = {"latent_cache": "cache", "sample_prompts_file": "prompts.txt"}
    train(Path(os.path.relpath(folder)), Path("run"), config(base="models/tiny", max_train_steps=1, **others))
    monkeypatch.chdir(folder)
    stored = read_settings(tmp_path / "run")
    assert Path(stored["folder"]).samefile(folder)
    assert stored["config"]["latent_cache"] == str(tmp_path / "cache")
    assert stored["config"]["sample_prompts_file"] == str(tmp_path / "prompts.txt")
    assert train(folder, tmp_path / "run", config(base=tiny_base, max_train_steps=1)).finished, "the same model"
    assert export(tmp_path / "run", tmp_path / "model", ExportConfig()).changed
    (tmp_path / "models" / "tiny").unlink()
    with pytest.raises(UserError, match="models/tiny"):
        export(tmp_path / "run", tmp_path / "another", ExportConfig(dtype="fp32"))


def test_a_start_that_failed_leaves_no_run_and_takes_another_config(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config
) -> None:
    run, hollow = tmp_path / "runs" / "first", str(tmp_path / "hollow")
    shutil.copytree(tiny_base, hollow, ignore=shutil.ignore_patterns("*.safetensors"))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"base": str(tmp_path / "none")}, "There is no model"),  # found before the folder is made
        ({"base": hollow}, "can't be loaded"),  # found after that
    ]
    for wrong, message in refused:
        with pytest.raises(UserError, match=message):
            train(folder, run, config(max_train_steps=1, **wrong))
        assert not run.exists()
    (run / "logs").mkdir(parents=True)  # the command's log of the start that failed
    (run / "problems.json").write_text("{}")
    assert train(folder, run, config(base=tiny_base, max_train_steps=1)).finished
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="can't be loaded"):
        train(folder, tmp_path / "mine", config(base=hollow))
    assert (tmp_path / "mine").is_dir()  # it was the user's


def test_checkpoints_come_by_epochs_and_by_minutes(
    tiny_base: str, folder: Path, tmp_path: Path, config: Config
) -> None:
    """By epochs at the first step behind an end, and at the run's."""
    never: dict[str, Any] = {"base": tiny_base, "checkpoint_every_n_steps": 0, "checkpoints_total_limit": 99}
    by_epochs = config(**never, epochs=5, checkpoint_every_n_epochs=2)
    train(folder, tmp_path / "epochs", by_epochs)
    ends = BatchSchedule(read_dataset(folder, 32, 8, 1), by_epochs).epoch_ends
    saved = [int(path.name) for path in list_checkpoints(tmp_path / "epochs")]
    assert saved == [-(-ends[1] // 2) * 2, -(-ends[3] // 2) * 2, ends[4]]
    train(folder, tmp_path / "minutes", config(**never, max_train_steps=3, checkpoint_every_n_minutes=1e-9))
    assert [int(path.name) for path in list_checkpoints(tmp_path / "minutes")] == [2, 4, 6]


def test_each_checkpoint_is_ready_as_one_file(tiny_base: str, folder: Path, tmp_path: Path, config: Config) -> None:
    settings: dict[str, Any] = {"base": tiny_base, "max_train_steps": 3, "checkpoint_single_file": True}
    train(folder, tmp_path / "run", config(**settings))
    train(folder, tmp_path / "lora", config(**settings, lora_rank=2))
    export(tmp_path / "run" / "checkpoints" / "6", tmp_path / "exported", ExportConfig())
    ready = sorted((tmp_path / "run" / "models").glob("*/model.safetensors"))
    assert [file.parent.name for file in ready] == ["4", "6"], "also of checkpoints that were removed since"
    assert_same(load_file(ready[-1]), load_file(tmp_path / "exported" / "model.safetensors"))
    assert len(list((tmp_path / "lora" / "models").glob("*/lora.safetensors"))) == 2


def test_a_run_that_diverges_keeps_no_checkpoint_of_it(
    tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Config
) -> None:
    settings = config(
        base=tiny_base, epochs=3, learning_rate=10, max_grad_norm=None, evaluate_every_n_steps=1, log_every_n_steps=1
    )
    with pytest.raises(UserError, match=r"not a number.* the base model is the last good state"):
        train(folder, tmp_path / "run", settings, heldout)
    assert not list_checkpoints(tmp_path / "run")


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ([4, 8], "checkpoints/8 is the last good state."),
        ([8, 12], "If they are at fault, run/checkpoints/12 is the last good state; if the rate is, run/checkpoints/8"),
        ([12], "if the rate is, the base model is."),
    ],
)
def test_a_state_from_which_no_step_went_well_is_not_called_good(kept: list[int], said: str) -> None:
    """The step after 12 images has a loss that is not a number."""
    data = schedules.dataset([(Fraction(1), [8, 0, 0])])
    schedule = BatchSchedule(data, TrainConfig(batch_size=4, epochs=3))
    checkpoints = [Path("run", "checkpoints", str(images)) for images in kept]
    assert said in explain(NonFiniteLossError(4), data, schedule, checkpoints)
