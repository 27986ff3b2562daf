"""Learned and forgotten: the arithmetic, and that two models differ by their weights alone."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.progress import silent
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.crops import center_view
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.evaluate.config import EvaluateConfig
from dreamloom.train.evaluate.evaluate import evaluate, read_heldout
from dreamloom.train.evaluate.held_out_loss import (
    compare_models,
    compute_dataset_losses,
    content_number,
    draw_timesteps_and_noise,
    drop_undecodable,
)
from dreamloom.train.evaluate.measure import measure
from dreamloom.train.families.opening import load_model
from dreamloom.train.loop.loop import train
from dreamloom.train.run.find import find_trained_model
from dreamloom.train.run.folder import best_checkpoint, best_point, list_checkpoints

CPU = torch.device("cpu")
SETTINGS = EvaluateConfig(
    resolution=32, bucket_reso_steps=8, batch_size=2, eval_timesteps=2, device="cpu", num_workers=2
)

losses = st.dictionaries(st.text(max_size=3), st.floats(0.01, 2), min_size=5, max_size=20)


@given(losses)
def test_no_change_is_no_change(base: dict[str, float]) -> None:
    result = measure(base, base, sign=-1)
    assert result is not None and result.change == 0 and result.error == pytest.approx(0, abs=1e-12)
    assert str(result.change) == "0.0"


@given(losses, st.floats(0.1, 3))
def test_a_common_factor_is_the_change_and_has_no_error(base: dict[str, float], factor: float) -> None:
    now = {name: loss * factor for name, loss in base.items()}
    learned, forgotten = measure(base, now, sign=-1), measure(base, now, sign=1)
    assert learned is not None and forgotten is not None
    assert learned.change == pytest.approx(1 - factor, abs=1e-9)
    assert forgotten.change == pytest.approx(factor - 1, abs=1e-9)
    assert learned.error == pytest.approx(0, abs=1e-6)


def test_the_standard_error_is_that_of_resampled_images() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(0.05, 0.4, 200)
    after = before * rng.normal(0.8, 0.2, 200) + rng.normal(0, 0.02, 200)
    names = [str(n) for n in range(200)]
    result = measure(
        dict(zip(names, before.tolist(), strict=True)), dict(zip(names, after.tolist(), strict=True)), sign=-1
    )
    chosen = rng.integers(0, 200, (4000, 200))
    bootstrap = (1 - after[chosen].mean(1) / before[chosen].mean(1)).std()
    assert result is not None and result.error == pytest.approx(bootstrap, rel=0.08)


def test_one_image_has_no_error_and_none_has_no_measure() -> None:
    one = measure({"a": 0.5}, {"a": 0.4}, sign=-1)
    assert one is not None and one.error is None and one.change == pytest.approx(0.2)
    assert measure({}, {}, sign=1) is None


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base: str,
    folder: Path,
    heldout: Path,
    config: Callable[..., TrainConfig],
) -> Path:
    """A finished run with its own evaluation, of its averaged weights."""
    path = tmp_path_factory.mktemp("runs") / "run"
    train(folder, path, config(base=tiny_base, max_train_steps=3, ema_half_life_images=4), heldout)
    return path


@pytest.mark.slow
def test_measured_from_outside_a_run_is_what_it_says_itself(run: Path, tiny_base: str, heldout: Path) -> None:
    evaluation = compare_models(
        find_trained_model(run), tiny_base, read_heldout(heldout, 32, 8, 1, True), SETTINGS, silent
    )
    own = json.loads((run / "evaluation.json").read_text())
    assert evaluation.learned is not None and evaluation.forgotten is not None
    last = own["points"][-1]
    assert (
        evaluation.learned.change == pytest.approx(last["learned"]["change"], abs=1e-6)
        and evaluation.learned.change > 0
    )
    assert evaluation.forgotten.change == pytest.approx(last["forgotten"]["change"], abs=1e-6)
    for kind, losses in own["base"].items():
        assert evaluation.base[kind] == pytest.approx(losses, rel=1e-6)
    for kind, losses in own["now"][str(last["images_seen"])].items():
        assert evaluation.now[kind] == pytest.approx(losses, rel=1e-6)
    assert json.loads(json.dumps(evaluation.to_dict()))["learned"]["images"] == 2
    unaveraged = evaluate(run, tiny_base, heldout, SETTINGS.model_copy(update={"use_ema": False}))
    assert unaveraged.learned is not None and abs(unaveraged.learned.change - evaluation.learned.change) > 1e-3


@pytest.mark.slow
def test_what_training_measured_is_not_measured_again(run: Path, tiny_base: str, heldout: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path\n"
        "from dreamloom.train.evaluate.config import EvaluateConfig\n"
        "from dreamloom.train.evaluate.evaluate import evaluate\n"
        f"config = EvaluateConfig.model_validate_json({SETTINGS.model_dump_json()!r})\n"
        f"evaluation = evaluate(Path({str(run)!r}), {tiny_base!r}, Path({str(heldout)!r}), config)\n"
        "print(json.dumps([evaluation.now, 'torch' in sys.modules]))"
    )
    house = Path(__file__).parents[3]
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=house)
    now, with_torch = json.loads(process.stdout)
    assert list(json.loads((run / "evaluation.json").read_text())["now"].values()) == [now]
    assert not with_torch
    as_the_run = evaluate(run, tiny_base, heldout, EvaluateConfig(device="cpu"))
    assert as_the_run.now == now, "what is not given is as in the run"
    assert evaluate(run, tiny_base, heldout, SETTINGS.model_copy(update={"seed": 1})).now != now


def test_the_best_checkpoint_is_the_one_that_learned_most_for_what_it_forgot(tmp_path: Path) -> None:
    def point(seen: int, learned: float | None, forgotten: float | None) -> dict[str, object]:
        return {
            "images_seen": seen,
            "learned": None if learned is None else {"change": learned},
            "forgotten": None if forgotten is None else {"change": forgotten},
        }

    points = [point(0, 0, 0), point(4, 0.3, 0.05), point(8, 0.5, 0.1), point(12, 0.6, 0.4), point(16, 0.35, -0.2)]
    assert best_point(points) == 8
    assert best_point([point(0, 0, 0)]) is None
    assert best_point([point(4, 0.2, None), point(8, 0.2, None)]) == 8
    assert best_point([point(4, None, 0.2), point(8, None, 0.1)]) == 8
    for seen in (4, 12, 16, 20):
        (tmp_path / "checkpoints" / str(seen)).mkdir(parents=True)
    newest = best_checkpoint(tmp_path)
    assert newest is not None and newest.name == "20"
    (tmp_path / "evaluation.json").write_text(json.dumps({"points": points}))
    best = best_checkpoint(tmp_path)
    assert best is not None and best.name == "16", "of those that are there"


@pytest.mark.slow
def test_the_best_checkpoint_outlives_the_newer_ones(
    tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    """Learning at a rate that ruins the model: what was best comes early."""
    settings = config(
        base=tiny_base, learning_rate=0.02, text_encoder_learning_rate=0.02, max_train_steps=8, evaluate_every_n_steps=1
    )
    train(folder, tmp_path / "run", settings, heldout)
    points = json.loads((tmp_path / "run" / "evaluation.json").read_text())["points"]
    best, last = best_point(points), points[-1]["images_seen"]
    assert best is not None and best < last
    assert {int(path.name) for path in list_checkpoints(tmp_path / "run")} == {best, last}
    assert find_trained_model(tmp_path / "run").checkpoint == tmp_path / "run" / "checkpoints" / str(best)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [SETTINGS.seed, 1])
def test_a_damaged_checkpoint_is_not_measured_nor_is_what_the_run_measured_told(
    run: Path, tiny_base: str, heldout: Path, tmp_path: Path, seed: int
) -> None:
    shutil.copytree(run, tmp_path / "run")
    file = list_checkpoints(tmp_path / "run")[-1] / "average.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 4
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"average\.safetensors differs from its checksum"):
        evaluate(tmp_path / "run", tiny_base, heldout, SETTINGS.model_copy(update={"seed": seed}))


def test_a_model_learned_and_forgot_nothing_against_itself(tiny_base: str, heldout: Path) -> None:
    evaluation = evaluate(tiny_base, tiny_base, heldout, SETTINGS)
    assert evaluation.learned is not None and evaluation.forgotten is not None
    assert (evaluation.learned.change, evaluation.forgotten.change) == (0, 0)
    assert evaluation.base == evaluation.now


def test_an_images_loss_depends_neither_on_its_batch_nor_on_its_name(
    tiny_base: str, heldout: Path, tmp_path: Path
) -> None:
    shutil.copytree(heldout, tmp_path / "held")
    renamed = next((tmp_path / "held" / "training" / "own").iterdir())
    renamed.rename(renamed.with_name("a thing_renamed.png"))
    model = load_model(tiny_base, CPU)
    found = []
    for place, batch in ((heldout, 1), (tmp_path / "held", 3)):
        (data,) = [kind for name, kind in read_heldout(place, 32, 8, 1, True).items() if name == "training"]
        latents = LatentCache(None, model.vae)
        latents.add(data.samples, 1)
        judged = compute_dataset_losses(model, data, latents, SETTINGS.model_copy(update={"batch_size": batch}))
        found.append(sorted(judged.values()))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.slow
def test_held_out_images_are_shown_as_the_run_shows_its_own(
    tiny_base: str, folder: Path, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    """A small, wide image: not enlarged it has a bucket of its own, and on a colour its loss is that inside it."""
    (tmp_path / "held" / "training" / "a").mkdir(parents=True)
    Image.new("RGB", (30, 12), "teal").save(tmp_path / "held" / "training" / "a" / "wide.png")
    white, black, small = {"pad_color": "#ffffff"}, {"pad_color": "#000000"}, {"upscale": False}
    ways: list[dict[str, Any]] = [{}, small, white, black, {**white, **small}]
    settings = [SETTINGS.model_copy(update=way) for way in ways]
    losses = [evaluate(tiny_base, tiny_base, tmp_path / "held", way).base["training"]["a/wide.png"] for way in settings]
    assert len(set(losses)) == len(ways), "each way of showing it is another image"
    run = tmp_path / "run"
    train(folder, run, config(base=tiny_base, max_train_steps=1, **ways[-1]), tmp_path / "held")
    assert json.loads((run / "evaluation.json").read_text())["base"]["training"]["a/wide.png"] == losses[-1]


def test_a_padded_held_out_images_loss_is_that_inside_it(tiny_base: str, tmp_path: Path) -> None:
    """64 × 24 in a bucket of 32 × 32 covers the rows 3 and 4 of 8 whole."""
    (tmp_path / "training").mkdir()
    Image.new("RGB", (64, 24), "teal").save(tmp_path / "training" / "x.png")
    config = SETTINGS.model_copy(
        update={"pad_color": "#ffffff", "eval_timesteps": 1, "bucket_reso_steps": 32, "precision": "fp32"}
    )
    model = load_model(tiny_base, CPU)
    latents = LatentCache(None, model.vae)
    data = drop_undecodable(read_heldout(tmp_path, 32, 32, 1, True)["training"], latents, config, silent)
    (sample,) = data.samples
    clean = model.scale_latents(latents.get(sample, center_view(sample, "#ffffff"))[:1].float())
    times, added = draw_timesteps_and_noise(
        model, [content_number(latents.key(sample))], 0, config, tuple(clean.shape[1:])
    )
    with torch.no_grad():
        noisy = model.schedule.add_noise(clean, added, times)
        answer = model.predict(noisy, times, model.encode(model.tokenize(["x"])))
    inside = (answer - added).square()[0, :, 3:5].mean()
    assert compute_dataset_losses(model, data, latents, config) == pytest.approx({"x.png": float(inside)}, rel=1e-5)


@pytest.mark.slow
def test_one_kind_alone_is_measured_alone(tiny_base: str, heldout: Path, tmp_path: Path) -> None:
    shutil.copytree(heldout / "training", tmp_path / "training")
    evaluation = evaluate(tiny_base, tiny_base, tmp_path, SETTINGS)
    assert evaluation.learned is not None and evaluation.forgotten is None
    (tmp_path / "ground_truth").mkdir()
    assert evaluate(tiny_base, tiny_base, tmp_path, SETTINGS).forgotten is None


def test_broken_held_out_images_are_named(tiny_base: str, heldout: Path, tmp_path: Path) -> None:
    shutil.copytree(heldout, tmp_path / "held")
    first, second = sorted((tmp_path / "held" / "ground_truth" / "ground").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:150])
    second.write_text("no image")
    evaluation = evaluate(tiny_base, tiny_base, tmp_path / "held", SETTINGS)
    assert evaluation.forgotten is not None and evaluation.forgotten.images == 1
    assert {line.split("(")[1] for line in evaluation.problems} == {"truncated)", "not_an_image)"}


def test_what_is_not_there_is_the_users_error(tiny_base: str, heldout: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="held-out"):
        evaluate(tiny_base, tiny_base, tmp_path, SETTINGS)
    with pytest.raises(UserError, match="no model"):
        evaluate(tiny_base, str(tmp_path / "missing"), heldout, SETTINGS)
    with pytest.raises(UserError, match="no model"):
        evaluate(tmp_path / "missing", tiny_base, heldout, SETTINGS)


def test_held_out_losses_that_are_no_numbers_are_no_measurement(heldout: Path, tiny_base: str) -> None:
    """By their means, nothing would surely be forgotten, and every limit would be held."""
    model = load_model(tiny_base, CPU)
    latents = LatentCache(None, model.vae)
    data = drop_undecodable(read_heldout(heldout, 32, 8, 1, True)["training"], latents, SETTINGS, silent)
    with torch.no_grad():
        model.denoiser.conv_in.bias.fill_(math.nan)
    with pytest.raises(UserError, match=rf"not a number \({data.samples[0].name}, .*lower the learning rate"):
        compute_dataset_losses(model, data, latents, SETTINGS)


def test_a_folder_one_level_too_low_is_told_as_that(heldout: Path) -> None:
    folder = next(path for path in sorted((heldout / "training").rglob("*")) if path.suffix == ".png").parent
    with pytest.raises(UserError, match=f"{folder} holds images, and no folders .*; name {folder.parent}, or put"):
        read_heldout(folder, 32, 8, 1, True)
