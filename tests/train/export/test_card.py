"""The model card says what the tables say, and nothing that was not measured."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.tables.held_out import HeldOutImage
from dreamloom.base.versions import RUN
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.measure import MEASURES, compare_losses
from dreamloom.train.export.card import ATTRIBUTION, CARD, base_licence, write_card
from dreamloom.train.run.folder import TrainSummary, write_settings, write_summary

IMAGES: list[dict[str, str | None]] = [
    {"source": "mine", "role": "training", "split": "train", "caption": "jo", "licence": None, "url": None},
    {"source": "world", "role": "ground_truth", "split": "train", "caption": "a dog", "licence": "CC BY | <b>2.0</b>"},
    {
        "source": "world",
        "role": "ground_truth",
        "split": "train",
        "caption": "a cat",
        "licence": None,
        "url": "http://x",
    },
    {"source": "world", "role": "ground_truth", "split": "heldout", "caption": "a fox", "licence": "CC0"},
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "some base"
    folder.mkdir()
    (folder / CARD).write_text("---\nlicense: creativeml-openrail-m\n---\n# A base\n")
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, base: Path) -> Path:
    """The checkpoint of a finished run after 40 images."""
    work = tmp_path / "work"
    run = work / "runs" / "now"
    (run / "checkpoints" / "40").mkdir(parents=True)
    names = ("source", "role", "split", "caption", "licence", "licence_url", "author", "url")
    rows = [{name: row.get(name) for name in names} for row in IMAGES]
    schema = pa.schema([(name, pa.string()) for name in names], {"dreamloom.schema": "1.1"})
    pq.write_table(pa.Table.from_pylist(rows, schema), work / "dataset.parquet")
    write_settings(run, "r", work / "dataset", None, TrainConfig(base=str(base), learning_rate=3e-6))
    asked, shown = {"mine": 0.5, "world": 0.5}, {"mine": 20, "world": 20}
    write_summary(run, TrainSummary(True, 3, 0, images_seen=40, asked=asked, shown=shown))
    return run / "checkpoints" / "40"


def measured(checkpoint: Path, images_seen: int = 40) -> None:
    losses = {f"world/a {shape} {n}.png": 0.1 + 0.001 * n for shape in ("dog", "cat") for n in range(8)}
    now = {name: loss * (1.3 if "dog" in name else 1.0) for name, loss in losses.items()}
    images = {f"ground_truth/{name}": HeldOutImage((name[8:11],)) for name in losses}
    evaluation = compare_losses({"ground_truth": losses}, {"ground_truth": now}, images).to_dict()
    point = {name: evaluation[name] for name in (*MEASURES, "groups", "verdict")}
    RUN.write_json(checkpoint.parent.parent / "evaluation.json", {"points": [{"images_seen": images_seen, **point}]})


def card_in(folder: Path) -> Any:
    return ModelCard.load(folder / CARD)


def card_of(checkpoint: Path, base: Path, folder: Path, **config: Any) -> Any:
    folder.mkdir(exist_ok=True)
    write_card(checkpoint, TrainConfig(base=str(base), learning_rate=3e-6, **config), folder, "jo")
    return card_in(folder)


def test_the_hub_reads_the_card(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    measured(checkpoint)
    card = card_of(checkpoint, base, tmp_path / "model")
    data = card.data.to_dict()
    assert data["license"] == "creativeml-openrail-m" and data["library_name"] == "diffusers"
    assert data["pipeline_tag"] == "text-to-image" and "base_model" not in data
    text = card.text
    assert "# jo" in text and "some base" in text and str(tmp_path) not in card.content
    assert "**Surely forgotten most: dog 30.0 %" in text
    assert "| forgotten | 1" in text and "What was not rehearsed was not measured." in text
    assert "| world | ground\\_truth | 2 | 50.0% | 20 | CC BY \\| &lt;b>2.0&lt;/b> 1, not known 1 |" in text
    assert "| learning\\_rate | 3e-06 |" in text


def test_each_image_that_was_trained_on_is_credited(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    card_of(checkpoint, base, tmp_path / "model")
    with (tmp_path / "model" / ATTRIBUTION).open(newline="") as file:
        assert [row["caption"] for row in csv.DictReader(file)] == ["a dog", "a cat"]


def test_what_was_not_measured_is_not_said(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    assert "was not measured: no images were held out" in card_of(checkpoint, base, tmp_path / "model").text
    measured(checkpoint, images_seen=20)
    assert "was not measured" in card_of(checkpoint, base, tmp_path / "model").text, "that was another checkpoint"


@pytest.mark.parametrize("damaged", [b'{"points": [{"imag', b'{"points": [40]}'])
def test_damaged_measures_are_not_taken_for_none(checkpoint: Path, base: Path, tmp_path: Path, damaged: bytes) -> None:
    (checkpoint.parent.parent / "evaluation.json").write_bytes(damaged)
    with pytest.raises(UserError, match=r"evaluation\.json is damaged"):
        card_of(checkpoint, base, tmp_path / "model")


def test_sources_of_a_dataset_that_changed_since_are_not_credited(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "work" / "dataset.parquet"
    table = pq.read_table(manifest, partitioning=None)
    pq.write_table(table.slice(1), manifest)
    text = card_of(checkpoint, base, tmp_path / "model").text
    assert "not recorded" in text and not (tmp_path / "model" / ATTRIBUTION).exists()
    (checkpoint.parent.parent / "summary.json").unlink()
    assert "The run is not finished" in card_of(checkpoint, base, tmp_path / "model").text


def test_samples_of_the_checkpoint_are_shown(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    samples = checkpoint.parent.parent / "samples"
    samples.mkdir()
    Image.new("RGB", (8, 8)).save(samples / "000000040.png")
    card = card_of(checkpoint, base, tmp_path / "model", sample_prompts=["jo on a *beach*"])
    assert "![samples](samples.png)" in card.text and "jo on a \\*beach\\*" in card.text
    assert (tmp_path / "model" / "samples.png").is_file()


def test_adapters_of_a_hub_model_name_it(checkpoint: Path, tmp_path: Path) -> None:
    config = TrainConfig(base="someone/some-model", lora_rank=4)
    (tmp_path / "model").mkdir()
    write_card(checkpoint, config, tmp_path / "model", "jo")
    data = card_in(tmp_path / "model").data.to_dict()
    assert data["base_model"] == "someone/some-model" and data["base_model_relation"] == "adapter"
    assert "lora" in data["tags"] and "license" not in data


@pytest.mark.parametrize(
    ("index", "denoiser", "name", "tag"),
    [
        ({"unet": ["", ""]}, {"cross_attention_dim": 768}, "Stable Diffusion 1", "stable-diffusion"),
        (
            {"unet": ["", ""], "text_encoder": ["x", "x"], "text_encoder_2": ["x", "x"]},
            {"cross_attention_dim": 2048},
            "Stable Diffusion XL",
            "stable-diffusion-xl",
        ),
        ({"transformer": ["", "SD3Transformer2DModel"]}, {}, "Stable Diffusion 3", "stable-diffusion-3"),
    ],
)
def test_the_family_of_adapters_is_told_by_their_base(
    checkpoint: Path, base: Path, tmp_path: Path, index: Any, denoiser: Any, name: str, tag: str
) -> None:
    (base / "model_index.json").write_text(json.dumps(index))
    folder = base / next(iter(index))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(denoiser))
    card = card_of(checkpoint, base, tmp_path / "model", lora_rank=4)
    assert f"adapters of rank 4 for some base, {name}." in card.text
    assert card.data.to_dict()["tags"][0] == tag


@pytest.mark.parametrize("text", ["", "no card", "---\n[\n---\n", "---\n- a\n---\n", "---\nlicense: [a]\n---\n"])
def test_a_base_s_card_that_says_no_licence_is_no_error(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    assert base_licence(str(tmp_path)) is None


def test_a_base_that_is_gone_says_no_licence(tmp_path: Path) -> None:
    assert base_licence(str(tmp_path / "gone" / "model")) is None


def test_a_licence_that_the_hub_has_no_name_for_is_other(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    (base / CARD).write_text(f"---\nlicense: {json.dumps('My Own License')}\n---\n")
    data = card_of(checkpoint, base, tmp_path / "model").data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "My Own License")
