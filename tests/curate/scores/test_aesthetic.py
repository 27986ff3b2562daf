"""LAION's heads give LAION's scores, and what is no head is refused in one sentence."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dreamloom.base.errors import UserError
from dreamloom.curate.scores.aesthetic import load_aesthetic_head

V1 = [-2.458, -0.138, 1.895, 3.585, 5.100, 6.470, 7.787, 9.048, 10.226, 11.304]
V2 = [1.655, 2.359, 3.070, 3.672, 4.238, 4.701, 5.073, 5.365, 5.577, 5.747]


@pytest.mark.parametrize(
    ("head", "scores"),
    [("LAION-AI/sa_0_4_vit_l_14_linear.pth", V1), ("improved/sac+logos+ava1-l14-linearMSE.pth", V2)],
    ids=["V1", "V2"],
)
def test_the_ten_golden_embeddings_score_as_published(shared_data: Path, head: str, scores: list[float]) -> None:
    folder = shared_data / "aesthetic"
    vectors = [np.load(folder / "LAION-AI" / "vit_l_14_embeddings" / f"rating{i}.npy") for i in range(10)]
    assert load_aesthetic_head(folder / head).score(np.concatenate(vectors)) == pytest.approx(scores, abs=6e-4)


def layers(*sizes: int, places: tuple[int, ...] = (0, 2, 4, 6, 7)) -> dict[str, torch.Tensor]:
    pairs = zip(places, pairwise(sizes), strict=True)
    return {
        name: tensor
        for place, (inputs, outputs) in pairs
        for name, tensor in (
            (f"layers.{place}.weight", torch.randn(outputs, inputs)),
            (f"layers.{place}.bias", torch.randn(outputs)),
        )
    }


def test_a_collapsed_head_equals_its_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = layers(12, 10, 8, 6, 4, 1)
    torch.save(state, tmp_path / "head.pth")
    save_file(state, tmp_path / "head.safetensors")
    x = torch.nn.functional.normalize(torch.randn(5, 12))
    y = x
    for place in (0, 2, 4, 6, 7):
        y = torch.nn.functional.linear(y, state[f"layers.{place}.weight"], state[f"layers.{place}.bias"])
    for name in ("head.pth", "head.safetensors"):
        assert load_aesthetic_head(tmp_path / name).score(x.numpy()) == pytest.approx(y[:, 0].numpy(), rel=1e-4)


def test_a_head_with_activations_is_refused(tmp_path: Path) -> None:
    torch.save(layers(12, 10, 8, 6, 4, 1, places=(0, 3, 6, 9, 11)), tmp_path / "relu.pth")
    with pytest.raises(UserError, match="not a usable aesthetic head"):
        load_aesthetic_head(tmp_path / "relu.pth")


@pytest.mark.parametrize("content", [b"", b"words", b"PK\x03\x04 torn"], ids=["empty", "text", "a torn file"])
@pytest.mark.parametrize("name", ["head.pth", "head.safetensors"])
def test_what_is_no_head_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="not a usable aesthetic head"):
        load_aesthetic_head(tmp_path / name)


@pytest.mark.parametrize(
    "state",
    [
        {"weight": torch.zeros(2, 8), "bias": torch.zeros(2)},
        {"weight": torch.zeros(8), "bias": torch.zeros(1)},
        {"weight": torch.zeros(1, 8)},
        layers(12, 10, 8, 6, 4, 1) | {"layers.4.weight": torch.zeros(3, 3)},
    ],
    ids=["two scores", "a vector", "no bias", "layers that do not fit"],
)
def test_tensors_that_make_no_score_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(UserError, match="not a usable aesthetic head"):
        load_aesthetic_head(tmp_path / "head.pth")


def test_a_head_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth is not there"):
        load_aesthetic_head(tmp_path / "nowhere.pth")
