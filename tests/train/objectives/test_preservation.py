"""What holds a model to its base: nothing at the start, the right thing later, and for the right images only."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.captions import with_class_word
from dreamloom.train.data.loader import LoadedBatch
from dreamloom.train.families.opening import load_model
from dreamloom.train.loop.trainer import Trainer
from dreamloom.train.objectives.objective import ForwardPass
from dreamloom.train.objectives.teacher import BaseModelTeacher
from dreamloom.train.plan import plan
from tests.train.conftest import CPU, MakeTrainer, tiny_config

BOTH = ["own", "ground"]
WORDS = {"concept_word": "thing", "class_word": "scene"}
EXTRAS: list[dict[str, Any]] = [
    {"class_preservation": 2.0, **WORDS},
    {"blank_preservation": 2.0},
    {"l2_sp": 0.5},
]


def disturb(trainer: Trainer) -> None:
    """Moves all trained weights, as learning would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter.add_(0.05 * torch.randn_like(parameter))


def extra(trainer: Trainer, batch: LoadedBatch) -> Tensor:
    """What the objectives beside denoising add to a batch's loss."""
    objectives = dict(trainer.objectives)
    whole = trainer.loss(batch)
    trainer.objectives = {"denoising": objectives["denoising"]}
    alone = trainer.loss(batch)
    trainer.objectives = objectives
    return whole - alone


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}, {"text_encoder_learning_rate": 0.0}], ids=str)
def test_at_the_base_its_own_prediction_is_no_error(make_trainer: MakeTrainer, changes: dict[str, Any]) -> None:
    trainer, batches = make_trainer(prior_prediction=1.0, ground_truth=BOTH, **changes)
    assert trainer.loss(batches[0]).item() == pytest.approx(0, abs=1e-6)
    half, _ = make_trainer(prior_prediction=1.0, prior_prediction_weight=0.5, ground_truth=BOTH, **changes)
    plain, _ = make_trainer(**changes)
    assert half.loss(batches[0]).item() == pytest.approx(plain.loss(batches[0]).item() / 2, rel=1e-4)


def test_prior_prediction_is_for_ground_truth_only_and_for_the_share_asked(make_trainer: MakeTrainer) -> None:
    trainer, batches = make_trainer(epochs=40, prior_prediction=0.5, ground_truth=["ground"])
    flags = torch.cat([batch.is_ground_truth for batch in batches])
    assert flags.float().mean().item() == pytest.approx(2.4 / 7.4, abs=0.02)
    changed = 0
    for batch in batches[:40]:
        differs = extra(trainer, batch).item() != 0
        assert not differs or batch.is_ground_truth.any()
        changed += differs
    of_known = sum(int(batch.is_ground_truth.sum()) for batch in batches[:40])
    assert 0.2 < changed / of_known < 0.8


@pytest.mark.parametrize("changes", EXTRAS, ids=str)
def test_the_base_is_left_in_peace_and_what_strays_is_pulled_back(
    make_trainer: MakeTrainer, changes: dict[str, Any]
) -> None:
    trainer, batches = make_trainer(**changes)
    batch = next(batch for batch in batches if not batch.is_ground_truth.all())
    assert extra(trainer, batch).item() == pytest.approx(0, abs=1e-6)
    disturb(trainer)
    strayed = extra(trainer, batch)
    assert strayed.item() > 1e-4
    gradients = torch.autograd.grad(strayed, trainer.parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(trainer.parameters, gradients, strict=True):
            if gradient is not None:
                parameter.sub_(1e-3 * gradient)
    assert extra(trainer, batch).item() < strayed.item()


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_the_teacher_stays_the_base(make_trainer: MakeTrainer, tiny_base: str, lora_rank: int | None) -> None:
    """Also while a model without a copy of it is trained: its adapters are off for the base's predictions alone."""
    trainer, batches = make_trainer(blank_preservation=1.0, lora_rank=lora_rank)
    wanted = [parameter.requires_grad for parameter in trainer.model.denoiser.parameters()]
    for batch in batches[:2]:
        trainer.step([batch])
    disturb(trainer)
    forward, text = look_at(trainer, batches[0]), batches[0].text
    base = load_model(tiny_base, CPU)
    expected = base.predict(forward.noisy.latents, forward.noisy.timesteps, base.encode(text))
    teacher = trainer_teacher(make_trainer, trainer, lora_rank)
    assert torch.allclose(teacher.predict(forward, text), expected, atol=1e-6)
    assert not torch.allclose(forward.predicted, expected, atol=1e-3)
    assert [parameter.requires_grad for parameter in trainer.model.denoiser.parameters()] == wanted


def look_at(trainer: Trainer, batch: LoadedBatch) -> ForwardPass:
    """The pass that objectives are given."""
    seen: list[ForwardPass] = []

    class Spy:
        def loss(self, forward: ForwardPass) -> Tensor:
            seen.append(forward)
            return forward.predicted.sum()

    objectives, trainer.objectives = trainer.objectives, {"spy": Spy()}
    trainer.loss(batch)
    trainer.objectives = objectives
    return seen[0]


def trainer_teacher(make_trainer: MakeTrainer, trainer: Trainer, lora_rank: int | None) -> BaseModelTeacher:
    """The teacher of a run: with adapters the trained model itself, else a copy made before the first step."""
    if lora_rank is not None:
        return BaseModelTeacher(trainer.model, trainer.config)
    fresh, _ = make_trainer(blank_preservation=1.0)
    return BaseModelTeacher(fresh.model, fresh.config)


def test_l2_sp_counts_once_a_step_however_it_is_accumulated(make_trainer: MakeTrainer) -> None:
    settings: dict[str, Any] = {"l2_sp": 0.3, "max_grad_norm": 1e9, "seed": 2}
    (once, batches), (twice, _) = make_trainer(**settings), make_trainer(**settings, gradient_accumulation_steps=2)
    plain, _ = make_trainer(max_grad_norm=1e9, seed=2)
    for trainer in (once, twice, plain):
        disturb(trainer)
    distance = sum(
        (p - s).square().sum().item() for p, s in zip(once.parameters, load_start(make_trainer), strict=True)
    )
    once.step(batches[:1])
    twice.step([batches[0], batches[0]])
    plain.step(batches[:1])
    losses = [trainer.window.take()[0].loss for trainer in (once, twice, plain)]
    assert losses[0] - losses[2] == pytest.approx(0.15 * distance, rel=1e-3)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def load_start(make_trainer: MakeTrainer) -> list[Tensor]:
    """The weights before the first step."""
    return [parameter.detach().clone() for parameter in make_trainer(seed=2)[0].parameters]


def test_captions_without_the_word_are_not_asked_for(make_trainer: MakeTrainer) -> None:
    words = {"concept_word": "scene", "class_word": "view"}
    trainer, batches = make_trainer(class_preservation=1.0, **words, ground_truth=["ground"], epochs=4)
    disturb(trainer)
    for batch in batches[:12]:
        assert batch.has_class_text is not None
        assert batch.has_class_text.equal(batch.is_ground_truth)  # whose captions say scene
        assert (extra(trainer, batch).item() > 0) == bool(batch.is_ground_truth.any())


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of ted", "a photo of person"),
        ("ted, ted's hat", "person, person's hat"),
        ("tedious, united, Ted", "tedious, united, person"),
        ("", ""),
    ],
)
def test_the_concepts_word_is_replaced_where_it_is_a_word(caption: str, expected: str) -> None:
    config = TrainConfig(class_preservation=1, concept_word="ted", class_word="person")
    assert with_class_word(caption, config) == expected


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"prior_prediction": 0.5}, "needs ground_truth: name the folders"),
        ({"prior_prediction": 0.5, "ground_truth": ["grund"]}, "grund is no folder of the training folder; it has"),
    ],
)
def test_the_plan_says_what_is_missing(tiny_base: str, folder: Path, changes: dict[str, Any], mend: str) -> None:
    with pytest.raises(UserError, match=mend):
        plan(folder, tiny_config(base=tiny_base, **changes))


def test_a_class_needs_its_words() -> None:
    with pytest.raises(ValueError, match="concept_word and class_word"):
        TrainConfig(class_preservation=1)
