"""Textual inversion: new words learn, nothing else moves unless asked, and other programs read them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.config import EvaluateConfig, as_trained
from dreamloom.train.evaluate.evaluate import read_heldout
from dreamloom.train.evaluate.held_out_loss import compare_models
from dreamloom.train.evaluate.sample import _make_pipeline
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export
from dreamloom.train.families.opening import load_model
from dreamloom.train.loop.loop import train
from dreamloom.train.model.embeddings import add_embeddings, take_embeddings
from dreamloom.train.model.model import Model
from dreamloom.train.run.find import find_trained_model
from dreamloom.train.run.folder import list_checkpoints
from tests.train.conftest import paint, tokens_of

Config = Callable[..., TrainConfig]
CPU = torch.device("cpu")
WORDS: dict[str, Any] = {"embeddings": ["rc-car=ab", "zorp=c"], "embedding_vectors": 3, "embedding_learning_rate": 0.01}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("captioned")
    for number in range(3):
        paint(root / "own" / f"my rc-car_{number}.png", (40, 40), number)
        paint(root / "own" / f"a zorp, x_{number}.png", (40, 40), 10 + number)
    paint(root / "own" / "else.png", (40, 40), 20)
    return root


def states(model: Model, *prompts: str) -> torch.Tensor:
    with torch.no_grad():
        return model.encode(model.tokenize(list(prompts))).states


def test_a_word_begins_as_the_words_that_it_is_given(tiny_base: str, config: Config) -> None:
    plain, model = load_model(tiny_base, CPU), load_model(tiny_base, CPU)
    add_embeddings(model, config(**WORDS))
    assert torch.equal(states(model, "a c", "x"), states(plain, "a c", "x"))
    ids = tokens_of(model.tokenize(["a rc-car b"]))[0].tolist()
    tokenizer = plain.tokenizers["text_encoder"]
    assert ids[2:5] == [len(tokenizer), len(tokenizer) + 1, len(tokenizer) + 2]
    assert torch.equal(tokens_of(model.tokenize(["rc-cars"])), tokens_of(plain.tokenize(["rc-cars"])))
    embedding = model.components["text_encoder"].get_input_embeddings()
    letters = tokenizer("ab", add_special_tokens=False).input_ids
    known = plain.components["text_encoder"].get_input_embeddings().weight
    assert torch.equal(embedding(torch.tensor(ids[2:5])), known[[letters[0], letters[1], letters[0]]])
    taken = take_embeddings(model)
    shapes = {word: tuple(vectors["text_encoder"].shape) for word, vectors in taken.items()}
    assert shapes == {"rc-car": (3, 32), "zorp": (3, 32)}
    assert model.components["text_encoder"].state_dict().keys() == plain.components["text_encoder"].state_dict().keys()


def test_samples_say_the_word_as_training_does(tiny_base: str, config: Config) -> None:
    model = load_model(tiny_base, CPU)
    add_embeddings(model, config(**WORDS))
    prompt = "a rc-car and a zorp"
    shown, _ = _make_pipeline(model, None).encode_prompt(prompt, CPU, 1, False)
    assert torch.equal(shown, states(model, prompt))


@pytest.mark.parametrize(
    "changes",
    [{"embeddings_alone": True}, {"text_encoder_learning_rate": 0}, {"lora_rank": 2}, {"weight_dtype": "bf16"}],
)
def test_what_is_not_to_learn_does_not_move(
    images: Path, tiny_base: str, tmp_path: Path, config: Config, changes: dict[str, Any]
) -> None:
    settings = config(base=tiny_base, max_train_steps=2, **WORDS, **changes)
    train(images, tmp_path / "run", settings)
    trained = find_trained_model(tmp_path / "run")
    weights = load_file(list_checkpoints(tmp_path / "run")[-1] / "weights.safetensors")
    (vectors,) = [value for name, value in weights.items() if name.endswith("token_embedding.vectors")]
    assert vectors.shape == (6, 32) and vectors.dtype == torch.float32
    assert settings.embeddings_alone == (len(weights) == 1)
    base, after = load_model(tiny_base, CPU), trained.load(trained.load_base(tiny_base, CPU, "fp32"), use_ema=True)
    before = trained.load_base(tiny_base, CPU, "fp32").components["text_encoder"].get_input_embeddings().vectors
    assert (before != vectors).any(dim=1).all()
    moved = not torch.equal(states(base, "else"), states(after, "else"))
    assert moved == (settings.text_encoder_learning_rate > 0 and not settings.embeddings_alone)


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(
    images: Path, tiny_base: str, tmp_path: Path, config: Config
) -> None:
    settings = config(base=tiny_base, max_train_steps=4, ema_half_life_images=4, weight_decay=0.1, **WORDS)

    def stop(done: int, total: int | None, note: str = "") -> None:
        if total == 8 and done == 6:
            raise KeyboardInterrupt

    train(images, tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        train(images, tmp_path / "killed", settings, progress=stop)
    train(images, tmp_path / "killed", settings)
    for name in ("weights.safetensors", "average.safetensors"):
        whole, killed = (list_checkpoints(tmp_path / run)[-1] / name for run in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()


def test_other_programs_read_what_is_exported(images: Path, tiny_base: str, tmp_path: Path, config: Config) -> None:
    import diffusers

    settings = config(base=tiny_base, max_train_steps=2, **WORDS)
    train(images, tmp_path / "run", settings)
    export(tmp_path / "run", tmp_path / "model", ExportConfig(dtype="fp32"))
    trained = find_trained_model(tmp_path / "run")
    model = trained.load(trained.load_base(tiny_base, CPU, "fp32"), use_ema=True)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    assert len(pipeline.tokenizer) == len(pipeline.text_encoder.get_input_embeddings().weight)
    for word in ("rc-car", "zorp"):
        pipeline.load_textual_inversion(tmp_path / "model" / "embeddings" / word)
        one_file = load_file(tmp_path / "model" / "embeddings" / f"{word}.safetensors")
        assert {name: tuple(value.shape) for name, value in one_file.items()} == {"emb_params": (3, 32)}
    shown, _ = pipeline.encode_prompt("my rc-car, a zorp", CPU, 1, False)
    assert torch.allclose(shown, states(model, "my rc-car, a zorp"), atol=1e-5)


@pytest.fixture
def old_base(bases: Callable[[str], str], tmp_path: Path) -> Callable[[str], str]:
    """The base of a family, whose configs call the end of a caption 2, as Stable Diffusion XL's do."""

    def make(family: str) -> str:
        shutil.copytree(bases(family), tmp_path / "old")
        for encoder in ("text_encoder", "text_encoder_2"):
            file = tmp_path / "old" / encoder / "config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": 2}))
        return str(tmp_path / "old")

    return make


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_both_clips_learn_a_word_and_t5_reads_captions_without_it(
    family: str, bases: Callable[[str], str], old_base: Callable[[str], str], config: Config
) -> None:
    plain, model = load_model(bases(family), CPU), load_model(old_base(family), CPU)
    with torch.no_grad():
        known = model.encode(model.tokenize(["a c", "x"]))
        for each in (plain, model):
            add_embeddings(each, config(**{**WORDS, "embedding_vectors": 2}))
        same = model.encode(model.tokenize(["a c", "x"]))
        said, expected = (each.encode(each.tokenize(["a rc-car"])) for each in (model, plain))
    take_embeddings(plain)
    assert torch.equal(same.states, known.states) and same.pooled is not None and known.pooled is not None
    assert torch.equal(same.pooled, known.pooled)
    assert said.pooled is not None and expected.pooled is not None
    assert torch.equal(said.pooled, expected.pooled), "summed up where the caption ends, not at the highest token"
    tokens = {name: part["tokens"] for name, part in model.tokenize(["rc-car a, zorp, b"]).encoders.items()}
    for encoder in ("text_encoder", "text_encoder_2"):
        count = len(plain.tokenizers[encoder])
        assert [token - count for token in tokens[encoder][0].tolist() if token >= count] == [0, 1, 2, 3]
    letters = plain.tokenizers["text_encoder"]("ab", add_special_tokens=False).input_ids
    for encoder, vectors in take_embeddings(model)["rc-car"].items():
        assert torch.equal(vectors, plain.components[encoder].get_input_embeddings().weight[letters])
    if "text_encoder_3" in tokens:
        assert torch.equal(tokens["text_encoder_3"], plain.tokenize(["a,, b"]).encoders["text_encoder_3"]["tokens"])


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_words_of_two_clips_are_read_by_other_programs(
    family: str, images: Path, old_base: Callable[[str], str], tmp_path: Path, config: Config
) -> None:
    import diffusers

    alone = family == "sd3"
    settings = config(
        base=old_base(family), max_train_steps=1, text_encoder_learning_rate=0, embeddings_alone=alone, **WORDS
    )
    train(images, tmp_path / "run", settings)
    export(tmp_path / "run", tmp_path / "model", ExportConfig(dtype="fp32"))
    trained = find_trained_model(tmp_path / "run")
    model = trained.load(trained.load_base(settings.base, CPU, "fp32"), use_ema=True)
    words = tmp_path / "model" / "embeddings"
    one_file = load_file(words / "rc-car.safetensors")
    assert {name: tuple(value.shape) for name, value in one_file.items()} == {"clip_l": (3, 16), "clip_g": (3, 24)}
    begun = take_embeddings(trained.load_base(settings.base, CPU, "fp32"))["rc-car"]
    assert all((one_file[key] != begun[name]).any() for name, key in model.family.embedding_keys.items())
    if alone:
        assert sorted(file.name for file in words.iterdir()) == ["rc-car.safetensors", "zorp.safetensors"]
        return
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(tmp_path / "model", add_watermarker=False)
    for word in ("rc-car", "zorp"):
        for ending in ("", "_2"):
            pipeline.load_textual_inversion(
                words / word,
                weight_name=f"learned_embeds{ending}.safetensors",
                text_encoder=getattr(pipeline, f"text_encoder{ending}"),
                tokenizer=getattr(pipeline, f"tokenizer{ending}"),
            )
    shown, _, pooled, _ = pipeline.encode_prompt("my rc-car, a zorp", device=CPU, do_classifier_free_guidance=False)
    with torch.no_grad():
        expected = model.encode(model.tokenize(["my rc-car, a zorp"]))
    assert torch.allclose(shown, expected.states, atol=1e-5)
    assert expected.pooled is not None and torch.allclose(pooled, expected.pooled, atol=1e-5)


def test_measured_from_outside_it_is_what_the_run_says(
    images: Path, tiny_base: str, tmp_path: Path, config: Config
) -> None:
    shutil.copytree(images, tmp_path / "held" / "training")
    settings = config(base=tiny_base, max_train_steps=2, embeddings_alone=True, **WORDS)
    train(images, tmp_path / "run", settings, tmp_path / "held")
    found = compare_models(
        find_trained_model(tmp_path / "run"),
        tiny_base,
        read_heldout(tmp_path / "held", 32, 8, 1, True),
        as_trained(settings, EvaluateConfig(device="cpu")),
        lambda *_: None,
    )
    (_, last) = json.loads((tmp_path / "run" / "evaluation.json").read_text())["points"]
    assert found.learned is not None and found.learned.change == pytest.approx(last["learned"]["change"], abs=1e-6) != 0


def test_a_word_that_cannot_be_learned_is_refused(images: Path, tiny_base: str, tmp_path: Path, config: Config) -> None:
    with pytest.raises(UserError, match="no caption says nowhere"):
        train(images, tmp_path / "run", config(base=tiny_base, embeddings=["nowhere=x"]))
    with pytest.raises(UserError, match="the model knows"):
        train(images, tmp_path / "other", config(base=tiny_base, embeddings=["x=c"]))
    for wrong in ("no start", "Two Words=x", "a_b=x", "x="):
        with pytest.raises(ValueError, match="WORD=START"):
            config(embeddings=[wrong])


def test_a_word_is_the_same_in_any_case_as_all_words_are_to_clip(tiny_base: str, config: Config) -> None:
    model = load_model(tiny_base, CPU)
    add_embeddings(model, config(**WORDS))
    assert torch.equal(
        tokens_of(model.tokenize(["A Zorp, an RC-Car"])), tokens_of(model.tokenize(["a zorp, an rc-car"]))
    )
