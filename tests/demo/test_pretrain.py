"""A few steps of each training, at tiny sizes: the loss falls, and a killed run ends as an undisturbed one."""

from pathlib import Path

import pytest
import torch

from dreamloom.demo.pretrain_blip import make_blip, train_blip
from dreamloom.demo.pretrain_clip import fit_head, make_clip, train_clip
from dreamloom.demo.pretrain_diffusion import make_text_encoder, make_unet, train_diffusion
from dreamloom.demo.pretrain_loop import Schedule, fit
from dreamloom.demo.pretrain_vae import make_vae, train_vae
from dreamloom.demo.pretrain_words import WORDS, bert_tokenizer, clip_tokenizer

pytestmark = pytest.mark.slow


def halves(curve: list[tuple[int, float]]) -> tuple[float, float]:
    assert len(curve) == 2
    return curve[0][1], curve[1][1]


def test_the_vae_learns_and_its_latents_get_unit_scale(tmp_path: Path) -> None:
    vae = make_vae()
    first, last = halves(train_vae(vae, tmp_path, 0, Schedule(12, 4, 2e-3, every=6), num_images=16))
    assert last < first
    assert vae.config.scaling_factor != 0.18215
    assert (tmp_path / "vae.csv").read_text().startswith("step,loss\n6,")


def test_unet_and_text_encoder_learn(tmp_path: Path) -> None:
    unet, text = make_unet(), make_text_encoder()
    before = text.get_input_embeddings().weight.clone()
    curve = train_diffusion(unet, text, make_vae(), tmp_path, 0, Schedule(16, 8, 2e-3, every=8), num_images=16)
    first, last = halves(curve)
    assert last < first
    assert not torch.equal(before, text.get_input_embeddings().weight)


def test_the_clip_learns_and_a_head_fits(tmp_path: Path) -> None:
    clip = make_clip()
    first, last = halves(train_clip(clip, tmp_path, 0, Schedule(20, 16, 2e-3, every=10), num_images=64))
    assert last < first
    weight, bias = fit_head(clip, 0, num_images=64)
    assert weight.shape == (128,)
    assert bias + abs(weight).sum() > 3


def test_the_blip_learns(tmp_path: Path) -> None:
    first, last = halves(train_blip(make_blip(), tmp_path, 0, Schedule(16, 8, 2e-3, every=8), num_images=32))
    assert last < first


@pytest.mark.parametrize("killed_at", [1, 3, 5])
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path, killed_at: int) -> None:
    class Killed(Exception):
        pass

    def trained(work: Path, kill: int | None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)

        def loss(step: int) -> torch.Tensor:
            if step == kill:
                raise Killed
            output: torch.Tensor = model(torch.randn(8, 4))
            return output.square().mean()

        fit("tiny", {"model": model}, loss, Schedule(6, 8, 0.1, every=2, save_seconds=0), work, seed=1)
        return [p.detach().clone() for p in model.parameters()]

    whole = trained(tmp_path / "whole", None)
    with pytest.raises(Killed):
        trained(tmp_path / "killed", killed_at)
    again = trained(tmp_path / "killed", None)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_every_word_of_the_world_is_one_token_and_any_other_text_survives() -> None:
    clip, bert = clip_tokenizer(), bert_tokenizer()
    for word in WORDS:
        assert len(clip.tokenize(word)) == 1
        assert len(bert.tokenize(word)) == 1
    assert len(clip.tokenize("zorp")) > 1
    assert clip.decode(clip("a zorp 日本", add_special_tokens=False).input_ids).replace(" ", "") == "azorp日本"
    assert bert.decode(bert("a zorp", add_special_tokens=False).input_ids) == "a zorp"
