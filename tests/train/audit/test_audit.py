"""An audit says what became of each concept, goes on after a kill, and calls nothing sure that did not change."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamloom.base.errors import UserError
from dreamloom.demo.world import Scene, Thing, caption, render
from dreamloom.flows.commands.cli import run
from dreamloom.train.audit.audit import audit
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.audit.results import Audit, ClassAccuracy, PromptDrift, read_audit
from tests.train.conftest import save_pipeline

DEMO = Path(__file__).parents[3] / "demo" / "models"
PROMPTS = ["a big red heart on a white background", "a small blue star on a pink background"]


def small_config(folder: Path, **changes: Any) -> AuditConfig:
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_text("# what is known\n" + "\n".join(PROMPTS))
    settings: dict[str, Any] = {
        "resolution": 32,
        "bucket_reso_steps": 8,
        "vocabulary": vocabulary,
        "drift_latents": 5,
        "drift_sample_steps": 2,
        "class_timesteps": 2,
        "num_pictures": 2,
        "sample_steps": 2,
        "device": "cpu",
        "num_workers": 1,
    }
    return AuditConfig(**{**settings, **changes})


def draw_classes(folder: Path, count: int) -> Path:
    from PIL import Image

    for shape in ("heart", "star"):
        (folder / shape).mkdir(parents=True)
        for number in range(count):
            scene = Scene("white", "flat", (Thing(shape, "red"),), "big", seed=number)
            Image.fromarray(render(scene)).save(folder / shape / f"{caption(scene)}_({number}).png")
    return folder


def with_noise(source: Path, target: Path, strength: float) -> Path:
    """A copy of a model with noise in each weight of the UNet."""
    shutil.copytree(source, target)
    (file,) = (target / "unet").glob("*.safetensors")
    generator = torch.Generator().manual_seed(0)
    weights = {n: w.float() + strength * torch.randn(w.shape, generator=generator) for n, w in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    return target


def test_a_model_audited_against_itself_has_not_moved_at_all(tiny_base: str, tmp_path: Path) -> None:
    images = draw_classes(tmp_path / "images", 5)
    found = audit(tiny_base, tiny_base, tmp_path / "audit", small_config(tmp_path), images)
    assert [each.drift for each in found.drift] == [0.0, 0.0]
    assert [pair.color_drift for pair in found.pictures] == [0.0, 0.0]
    assert all(each.change == 0 for each in found.classes) and len(found.classes) == 2
    assert found.verdict == "nothing surely changed, of 2 prompts and 2 classes"


def test_a_copy_with_little_noise_has_not_surely_changed_and_a_broken_one_has(tmp_path: Path) -> None:
    base = DEMO / "stable-diffusion"
    config = small_config(tmp_path, resolution=64, bucket_reso_steps=64, num_pictures=0, drift_sample_steps=4)
    for strength, sure in ((1e-4, False), (0.05, True)):
        model = with_noise(base, tmp_path / f"model-{strength}", strength)
        found = audit(model, str(base), tmp_path / f"audit-{strength}", config)
        assert all(0 < each.drift < (10 if sure else 0.02) for each in found.drift)
        assert [each.sure for each in found.drift] == [sure, sure]
        assert found.verdict.startswith("surely drifted most" if sure else "nothing surely changed")


def test_a_killed_audit_goes_on_to_the_same_numbers(tiny_base: str, tmp_path: Path) -> None:
    images, config = draw_classes(tmp_path / "images", 2), small_config(tmp_path, batch_size=5)
    model = str(with_noise(Path(tiny_base), tmp_path / "model", 0.01))
    whole = audit(model, tiny_base, tmp_path / "whole", config, images)
    for stopped_at in (("classifying images", 2), ("drift", 1), ("drawing pictures", 2)):

        def stop(done: int, total: int | None, note: str = "", at: Any = stopped_at) -> None:
            if (note, done) == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            audit(model, tiny_base, tmp_path / "killed", config, images, stop)
    again = audit(model, tiny_base, tmp_path / "killed", config, images)
    assert (again.drift, again.classes) == (whole.drift, whole.classes)
    assert [pair.color_drift for pair in again.pictures] == [pair.color_drift for pair in whole.pictures]
    for which in ("drift", "classes"):
        for file in (tmp_path / "killed" / "measured").glob(f"{which}-*.jsonl"):
            assert len(file.read_text().split()) == len(
                (tmp_path / "whole" / "measured" / file.name).read_text().split()
            )


def test_an_audit_that_is_there_is_read_and_a_change_of_one_part_leaves_the_others(
    tiny_base: str, tmp_path: Path
) -> None:
    folder, calls = tmp_path / "audit", []

    def watch(done: int, total: int | None, note: str = "") -> None:
        calls.append(note)

    found = audit(tiny_base, tiny_base, folder, small_config(tmp_path), progress=watch)
    calls.clear()
    assert audit(tiny_base, tiny_base, folder, small_config(tmp_path), progress=watch) == found and not calls
    assert read_audit(folder / "audit.json") == found
    (journal,) = (folder / "measured").glob("drift-*.jsonl")
    before = journal.read_bytes()
    audit(tiny_base, tiny_base, folder, small_config(tmp_path, num_pictures=1))
    assert journal.read_bytes() == before
    assert audit(tiny_base, tiny_base, folder, small_config(tmp_path, drift_sample_steps=3)).drift != ()
    assert len(list((folder / "measured").glob("drift-*.jsonl"))) == 2


def test_another_model_in_the_same_folder_asks_the_base_no_more(tiny_base: str, tmp_path: Path) -> None:
    images, config = draw_classes(tmp_path / "images", 2), small_config(tmp_path, num_pictures=0, max_concepts=1)
    before = audit(tiny_base, tiny_base, tmp_path / "audit", config, images)
    (answers,) = (tmp_path / "audit" / "measured").glob("classes-base-*.jsonl")
    told = answers.read_bytes()
    after = audit(
        str(with_noise(Path(tiny_base), tmp_path / "model", 0.1)), tiny_base, tmp_path / "audit", config, images
    )
    assert answers.read_bytes() == told
    margins = [{each.name: each.base_margin for each in found.classes} for found in (before, after)]
    assert margins[0] == margins[1]
    assert any(each.model_margin != each.base_margin for each in after.classes)


def test_a_folder_with_other_files_is_left_alone(tiny_base: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other files"):
        audit(tiny_base, tiny_base, tmp_path / "mine", small_config(tmp_path))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_models_of_two_families_are_not_compared(tiny_base: str, tmp_path: Path) -> None:
    save_pipeline(tmp_path / "other", unet={"layers_per_block": 2}, vae={"levels": 3})
    with pytest.raises(UserError, match="not of one kind"):
        audit(tmp_path / "other", tiny_base, tmp_path / "audit", small_config(tmp_path))


def test_the_pictures_are_compared_by_clip_and_shown_the_most_changed_first(tiny_base: str, tmp_path: Path) -> None:
    model = with_noise(Path(tiny_base), tmp_path / "model", 0.2)
    config = small_config(tmp_path, num_pictures=3, clip=str(DEMO / "clip"), drift_latents=1)
    found = audit(model, tiny_base, tmp_path / "audit", config)
    distances = [pair.clip_distance or 0.0 for pair in found.pictures]
    assert distances == sorted(distances, reverse=True) and distances[0] > 0
    page = (tmp_path / "audit" / "index.html").read_text()
    assert page.count("data:image/jpeg") == 6 and PROMPTS[0] in page
    assert not any(each.sure for each in found.drift), "of one latent, nothing is sure"


def test_the_verdict_names_the_worst_class_that_is_sure() -> None:
    classes = (
        ClassAccuracy("cat", 5, 1.0, 0.2, -1.0, 0.1),
        ClassAccuracy("dog", 20, 0.9, 0.3, -0.9, -0.2),
        ClassAccuracy("cow", 20, 0.5, 0.9, 0.2, 0.6),
    )
    found = Audit(
        "model", "base", (PromptDrift("a <dog>", 0.4, 0.2, 0.6), PromptDrift("a cat", 0.3, 0.05, 0.5)), classes
    )
    assert found.verdict == (
        "surely recognized less, most: dog (90 to 30 %); surely drifted most: 'a <dog>' (0.40); surely: 1 of 2 prompts "
        "drifted, 1 of 3 classes recognized less"
    )
    assert "<dog>" not in found._repr_html_()


def test_the_command_prints_what_changed_most(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_config(tmp_path)
    tokens = ["audit", tiny_base, "--base", tiny_base, "--output", str(tmp_path / "audit"), "--resolution", "32"]
    tokens += ["--vocabulary", str(tmp_path / "vocabulary.txt"), "--max-concepts", "1", "--drift-latents", "1"]
    tokens += ["--drift-sample-steps", "1", "--num-pictures", "0", "--device", "cpu"]
    assert run(tokens) == 0
    out = capsys.readouterr().out
    assert "nothing surely changed, of 1 prompts" in out and PROMPTS[0] in out
    assert "max_concepts null: the whole vocabulary: about" in out
