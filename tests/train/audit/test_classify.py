"""A model tells classes apart by how well their prompts predict an image's noise, and few rounds are enough."""

from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.train.audit.audit import audit
from dreamloom.train.audit.class_images import read_class_images
from dreamloom.train.audit.classify import _choices, _prompts, classify, passes_per_image
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.audit.results import ClassAccuracy
from tests.train.audit.test_audit import DEMO, draw_classes, small_config, with_noise
from tests.train.conftest import paint


def test_the_demo_s_model_knows_its_shapes(tmp_path: Path) -> None:
    images = draw_classes(tmp_path / "images", 3)
    config = small_config(tmp_path, resolution=64, bucket_reso_steps=64, class_timesteps=8, images_per_class=2)
    model = str(DEMO / "stable-diffusion")
    assert classify(model, images, None, config) == {"heart": 1.0, "star": 1.0}
    given = {name: f"a big red {name} on a white background" for name in ("heart", "star")}
    assert classify(model, images, given, config) == {"heart": 1.0, "star": 1.0}
    exchanged = dict(zip(given, reversed(given.values()), strict=True))
    assert classify(model, images, exchanged, config) == {"heart": 0.0, "star": 0.0}


def test_the_margin_narrows_before_a_class_is_mistaken(tmp_path: Path) -> None:
    images = draw_classes(tmp_path / "images", 3)
    config = small_config(tmp_path, resolution=64, bucket_reso_steps=64, num_pictures=0, drift_latents=1, clip=None)
    damaged = with_noise(DEMO / "stable-diffusion", tmp_path / "model", 0.02)
    found = audit(damaged, str(DEMO / "stable-diffusion"), tmp_path / "audit", config, images)
    assert all(each.base == 1.0 and each.base_margin > 0.5 for each in found.classes)
    kept = [each.margin_kept for each in found.classes]
    assert all(share is not None and share < 0.9 for share in kept)
    assert list(found.classes) == sorted(found.classes, key=lambda each: each.order)


def test_a_class_is_judged_by_the_share_of_its_margin_that_is_left() -> None:
    """Classes that are easy to tell have wide margins, and lose more of them where as much is left."""
    easy = ClassAccuracy("triangle", 8, 1.0, 1.0, base_margin=2.0, model_margin=1.4)
    hard = ClassAccuracy("cross", 8, 1.0, 1.0, base_margin=0.5, model_margin=0.1)
    unknown = ClassAccuracy("zorp", 8, 0.1, 0.9, base_margin=-0.3, model_margin=0.8)
    assert (easy.margin_kept, hard.margin_kept, unknown.margin_kept) == (0.7, 0.2, None)
    assert sorted((unknown, easy, hard), key=lambda each: each.order) == [hard, easy, unknown]


def test_a_caption_that_names_the_class_is_the_prompt_of_all() -> None:
    config, choices = AuditConfig(), ("apple", "red cup")
    assert _prompts("an Apple on a table", ("apple",), choices, config) == {
        "apple": "an Apple on a table",
        "red cup": "a red cup on a table",
    }
    assert _prompts("pineapple pie", ("apple",), choices, config) == {
        "apple": "a photo of an apple",
        "red cup": "a photo of a red cup",
    }


def test_rounds_cost_less_than_all_classes_at_all_levels() -> None:
    config = AuditConfig(class_timesteps=8, num_choices=None)
    assert passes_per_image(1, config) == 0
    assert passes_per_image(2, config) == 2 * 8
    assert passes_per_image(80, config) == 8 * (80 + 27 + 9 + 3)
    assert passes_per_image(1000, AuditConfig(class_timesteps=8)) == 8 * (10 + 4 + 2)


def test_an_image_s_own_classes_are_among_its_choices_and_the_others_are_the_seed_s() -> None:
    names = [f"class {number}" for number in range(50)]
    config = AuditConfig(num_choices=5)
    chosen = _choices(("class 7", "class 9"), names, "content", config)
    assert len(chosen) == 5 and {"class 7", "class 9"} <= set(chosen)
    assert chosen == _choices(("class 7", "class 9"), names, "content", config)
    assert chosen != _choices(("class 7", "class 9"), names, "content", config.model_copy(update={"seed": 1}))


def test_classes_are_subfolders_synsets_or_the_concepts_of_held_out_images(tmp_path: Path) -> None:
    for name in ("fire_truck/a", "fire_truck/b", "n01440764/c", "n01440764/d"):
        paint(tmp_path / "classes" / f"{name}.png", (40, 40), len(name))
    found = read_class_images(tmp_path / "classes", small_config(tmp_path, images_per_class=1))
    assert found.names() == ["fire truck", "tench"] and len(found.dataset.samples) == 2
    for number in range(12):
        what = ("a dog", "a cat")[number % 2] + " in a garden"
        paint(tmp_path / "heldout" / "witness" / "pets" / f"{what}_{number}.png", (40, 40), number)
    assert read_class_images(tmp_path / "heldout", small_config(tmp_path)).names() == ["cat", "dog"]


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    paint(tmp_path / "images" / "dog" / "a.png", (40, 40), 1)
    with pytest.raises(UserError, match="nothing to tell apart"):
        read_class_images(tmp_path / "images", small_config(tmp_path))
