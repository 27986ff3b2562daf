"""BLIP in batches says what transformers says of one picture at a time; what is kept, made and dropped is counted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError
from safetensors.numpy import save_file

from base.errors import UserError
from base.pixels import decode
from base.stage import StageConfig, Summary
from caption.blip import CaptionConfig, caption, check, load, recipes
from caption.sidecar import read_caption
from scrape.collection import CaptionKind, Choice, Collection, Table
from scrape.folder import FolderConfig, ingest_folder

HOUSE = Path(__file__).parents[2]
WORDS = ["a", "an", "the", "of", "on", "in", "and", "with", "red", "blue", "green", "car", "dog", "cat", "man"]
WORDS += [",", ".", "'", "s", "##s", "photo", "picture", "street", "big", "small"]
SIZES = [(64, 48), (1, 40), (40, 1), (33, 90), (1, 1), (300, 200), (17, 17)]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small BLIP with random weights, so large that its captions differ from picture to picture."""
    import torch
    import transformers
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0, "vocab_size": len(words)}
    torch.manual_seed(2)
    model = BlipForConditionalGeneration(
        BlipConfig(
            text_config={**size, **tokens, "encoder_hidden_size": 32, "max_position_embeddings": 64},
            vision_config={**size, "image_size": 32, "patch_size": 8},
        )
    )
    with torch.no_grad():
        for weights in (each for each in model.parameters() if each.dim() > 1):
            weights.copy_(torch.randn_like(weights) * 0.3)
    model.save_pretrained(folder)
    pictures = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(image_processor=pictures, tokenizer=tokenizer).save_pretrained(folder)
    return str(folder)


def picture(number: int) -> Image.Image:
    width, height = SIZES[number % len(SIZES)]
    noise = np.random.default_rng(number).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def make_collection(root: Path, count: int = 10, **config: Any) -> Collection:
    """A collection of pictures, every other one with a caption in its name."""
    folder = root / "pictures"
    folder.mkdir(parents=True)
    for number in range(count):
        picture(number).save(folder / f"{f'a red car_{number:02}' if number % 2 else f'{number:02}'}.png")
    collection = Collection(root / "work")
    ingest_folder(collection, FolderConfig(path=folder, **config), read_caption)
    return collection


def config_of(tiny: str, **values: Any) -> CaptionConfig:
    return CaptionConfig(model=tiny, device="cpu", **{"precision": "fp32", "max_length": 12, **values})


def captions(collection: Collection) -> list[dict[str, Any]]:
    return list(collection.read(Table.CAPTIONS).to_pylist())


@pytest.mark.parametrize("prompt", ["", "a photo of"])
@pytest.mark.parametrize("beams", [1, 3])
def test_batches_say_token_for_token_what_one_at_a_time_says(tiny: str, beams: int, prompt: str) -> None:
    import torch
    from transformers import BlipForConditionalGeneration, BlipProcessor

    processor = BlipProcessor.from_pretrained(tiny)
    model = BlipForConditionalGeneration.from_pretrained(tiny).eval()
    blip = load(config_of(tiny, beams=beams, prompt=prompt))
    pictures = [picture(number) for number in range(12)]
    written = blip.write([blip.prepare(one) for one in pictures])
    for one, ours in zip(pictures, written, strict=True):
        asked = processor(images=one, text=prompt or None, return_tensors="pt")
        with torch.inference_mode():
            theirs = model.generate(
                **asked, num_beams=beams, do_sample=False, min_new_tokens=5, max_new_tokens=12, no_repeat_ngram_size=3
            )[0]
        begin = len(processor.tokenizer(prompt).input_ids) - 1 if prompt else 1
        expected = [token for token in theirs[begin:].tolist() if token not in (0, 3)]
        assert ours.tokens == expected
        assert blip.text(ours.tokens) == processor.decode(
            expected, skip_special_tokens=True, clean_up_tokenization_spaces=True
        )
    assert len({tuple(one.tokens) for one in written}) > 6  # a model that says one thing of all would prove nothing


def test_the_score_is_the_mean_log_probability_of_the_tokens(tiny: str) -> None:
    import torch

    blip = load(config_of(tiny, no_repeat=0, min_length=0))
    (written,) = blip.write([blip.prepare(picture(3))])
    ids = torch.tensor([[5, *written.tokens, 3]])
    with torch.inference_mode():
        seen = blip.model.vision_model(pixel_values=blip.prepare(picture(3))[None])[0]
        logits = blip.model.text_decoder(input_ids=ids[:, :-1], encoder_hidden_states=seen).logits
    logs = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[0, :, 0]
    counted = logs if len(written.tokens) < 12 else logs[:-1]
    assert written.score == pytest.approx(counted.mean().item(), abs=1e-4)


def test_words_are_put_together_as_people_write_them(tiny: str) -> None:
    blip = load(config_of(tiny))
    tokens = blip.processor.tokenizer("a man's red car, a dog", add_special_tokens=False).input_ids
    assert blip.text(tokens) == "a man's red car, a dog"


def test_captions_of_people_are_kept_and_the_others_written(tiny: str, tmp_path: Path) -> None:
    collection = make_collection(tmp_path)
    seen: list[tuple[int, int | None]] = []
    config = config_of(tiny, batch=2)
    summary = caption(collection, config, lambda done, total, note="": seen.append((done, total)))
    rows = captions(collection)
    assert [row["key"] for row in rows] == collection.read(Table.RECORDS).column("key").to_pylist()
    human = [row for row in rows if row["kind"] == CaptionKind.HUMAN]
    assert {(row["caption"], row["model"], row["score"]) for row in human} == {("a red car", None, None)}
    written = [row for row in rows if row["kind"] == CaptionKind.MODEL]
    assert len(written) == len(human) == 5
    assert all(row["model"] == tiny and row["score"] < 0 and row["caption"] for row in written)
    assert (summary.rows, summary.kept, seen[-1]) == (10, 10, (10, 10))
    assert caption(collection, config).parts_done == 0


def test_what_is_kept_is_for_the_config_to_say(tiny: str, tmp_path: Path) -> None:
    collection = make_collection(tmp_path, count=3)
    caption(collection, config_of(tiny, keep=[]))
    assert {row["kind"] for row in captions(collection)} == {CaptionKind.MODEL}
    template = make_collection(tmp_path / "template", count=3, template="")
    caption(template, config_of(tiny, keep=["template"]))
    assert {(row["caption"], row["kind"]) for row in captions(template)} == {("", CaptionKind.TEMPLATE)}


def test_only_what_was_chosen_is_captioned(tiny: str, tmp_path: Path) -> None:
    collection = make_collection(tmp_path, count=6)
    keys = collection.read(Table.RECORDS).column("key").to_pylist()
    before = recipes(collection, config_of(tiny))
    kinds = [Choice.KEPT, Choice.DUPLICATE, Choice.KEPT, Choice.KEPT, Choice.LOW_AESTHETIC, Choice.KEPT]
    rows = pa.table({"key": keys, "choice": [str(kind) for kind in kinds]})
    summary = Summary(rows=6, kept=6)
    collection.write(Table.CHOICES, "00000", rows, recipe="r", config=StageConfig(), summary=summary)
    assert recipes(collection, config_of(tiny)) != before
    assert caption(collection, config_of(tiny)).rows == 4
    assert [row["key"] for row in captions(collection)] == [keys[i] for i in (0, 2, 3, 5)]


def test_a_picture_that_went_away_gets_no_row_and_is_counted(tiny: str, tmp_path: Path) -> None:
    collection = make_collection(tmp_path)
    rows = collection.read(Table.RECORDS).to_pylist()
    by_name = {Path(row["path"]).name: row for row in rows}
    (collection.root / by_name["02.png"]["image"]).unlink()
    (collection.root / by_name["a red car_03.png"]["image"]).unlink()  # nobody looks at it
    stored = collection.root / by_name["04.png"]["image"]
    stored.unlink()
    stored.write_bytes(b"no picture")
    summary = caption(collection, config_of(tiny))
    assert (summary.rows, summary.kept, summary.dropped) == (10, 8, {"missing_file": 1, "not_an_image": 1})
    gone = {by_name["02.png"]["key"], by_name["04.png"]["key"]}
    assert {row["key"] for row in captions(collection)} == {row["key"] for row in rows} - gone


def test_the_table_does_not_depend_on_batch_or_threads(tiny: str, tmp_path: Path) -> None:
    tables = []
    for batch, workers in [(1, 1), (7, 3)]:
        collection = make_collection(tmp_path / f"{batch}")
        caption(collection, config_of(tiny, batch=batch, workers=workers, keep=[]))
        tables.append(collection.read(Table.CAPTIONS).drop(["key"]))
    assert tables[0].equals(tables[1])


def test_speed_settings_make_nothing_again_and_the_model_does(tiny: str, tmp_path: Path) -> None:
    collection = make_collection(tmp_path, count=2)
    config = config_of(tiny)
    before = recipes(collection, config)
    assert recipes(collection, config_of(tiny, batch=3, workers=1)) == before
    for change in [{"beams": 2}, {"prompt": "a"}, {"precision": "bf16"}, {"keep": ["alt"]}]:
        assert recipes(collection, config_of(tiny, **change)) != before


def test_bf16_writes_captions_too(tiny: str, tmp_path: Path) -> None:
    collection = make_collection(tmp_path, count=4)
    caption(collection, config_of(tiny, precision="bf16", keep=[]))
    assert all(row["score"] < 0 for row in captions(collection))


def test_a_model_that_is_none_is_refused_in_one_sentence(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text(json.dumps({"model_type": "blip"}))
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[]")
    for model, words in [
        (str(tmp_path / "nowhere"), "no config.json"),
        ("blip", "no config.json"),
        ("./org/name", "no config.json"),
        (str(tmp_path / "clip"), "of the kind clip, not blip"),
        (str(tmp_path / "bare"), "has no weights"),
        (str(tmp_path / "list"), "no config.json"),
    ]:
        with pytest.raises(UserError, match=words):
            check(CaptionConfig(model=model))
    check(CaptionConfig(model="Salesforce/blip-image-captioning-base"))
    check(CaptionConfig(model=tiny))


def test_weights_that_are_none_are_refused_in_one_sentence(tiny: str, tmp_path: Path) -> None:
    for name in ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((Path(tiny) / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="can't be loaded"):
        load(CaptionConfig(model=str(tmp_path), device="cpu"))
    save_file({}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks weights"):
        load(CaptionConfig(model=str(tmp_path), device="cpu"))
    with pytest.raises(UserError, match="can't be loaded"):
        load(CaptionConfig(model="nobody/no-such-blip", device="cpu"))


def test_lengths_that_can_not_be_are_refused() -> None:
    with pytest.raises(ValidationError, match="above max_length"):
        CaptionConfig(min_length=9, max_length=5)


def test_a_plan_loads_no_model() -> None:
    code = (
        "import sys; from pathlib import Path; from scrape.collection import Collection\n"
        "from caption.blip import CaptionConfig, check, recipes\n"
        "check(CaptionConfig()); recipes(Collection(Path('nowhere')), CaptionConfig())\n"
        "print(*{'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOUSE)
    assert done.stdout.strip() == ""


def test_the_shipped_blip_describes_a_real_photo(shared_data: Path) -> None:
    model = HOUSE / "demo" / "models" / "blip"
    if not model.is_dir():
        pytest.skip("the demo's models are not there")
    blip = load(CaptionConfig(model=str(model), device="cpu"))
    (written,) = blip.write([blip.prepare(decode(shared_data / "subjects" / "rc_car" / "02.jpg"))])
    assert 5 <= len(written.tokens) <= 30
