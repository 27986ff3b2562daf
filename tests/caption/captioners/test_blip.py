"""BLIP in batches says what transformers says of one image at a time; what is drawn hangs on the image alone."""

import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.numpy import save_file

from dreamloom.base.errors import UserError
from dreamloom.base.images.pixels import decode
from dreamloom.caption.captioners.blip import forbid_third, load_blip, unload_blip
from dreamloom.caption.config import CaptionConfig

HOUSE = Path(__file__).parents[2]
KEYS = [f"{number:032x}" for number in range(100)]
Draw = Callable[[int], Image.Image]
MakeConfig = Callable[..., CaptionConfig]


@pytest.fixture
def folder(kind: str, tiny: str, tiny2: str, tiny_t5: str) -> str:
    """The model of a kind."""
    return {"Blip": tiny, "Blip2": tiny2, "Blip2 T5": tiny_t5}[kind]


def one_at_a_time(folder: str, kind: str, image: Image.Image, prompt: str, beams: int) -> list[list[int]]:
    """What transformers itself says of an image: as many token lists as there are beams, the best first."""
    import torch
    import transformers

    processor = getattr(transformers, f"{kind}Processor").from_pretrained(folder)
    model = getattr(transformers, f"{kind}ForConditionalGeneration").from_pretrained(folder).eval()
    asked = processor(images=image, text=prompt or None, return_tensors="pt")
    lengths = {"min_new_tokens": 5, "max_new_tokens": 12, "no_repeat_ngram_size": 3}
    ours = transformers.LogitsProcessorList([forbid_third])
    with torch.inference_mode():
        out = model.generate(
            **asked, num_beams=beams, num_return_sequences=beams, do_sample=False, logits_processor=ours, **lengths
        )
    if model.config.is_encoder_decoder and kind == "Blip2":  # what it is given is for the encoder
        begin, end = 1, 4
    elif kind == "Blip2":  # the queries, and the prompt or a beginning
        begin, end = 4 + (len(processor.tokenizer(prompt).input_ids) if prompt else 1), 4
    else:
        begin, end = len(processor.tokenizer(prompt).input_ids) - 1 if prompt else 1, 3
    return [tokens[begin : [*tokens, end].index(end, begin)] for tokens in out.tolist()]


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["", "a photo of"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["Blip", "Blip2", "Blip2 T5"])
def test_batches_say_token_for_token_what_one_at_a_time_says(
    folder: str, draw_image: Draw, config_of: MakeConfig, kind: str, beams: int, prompt: str
) -> None:
    blip = load_blip(config_of(folder, num_beams=beams, prompt=prompt, num_candidates=beams))
    images = [draw_image(number) for number in range(12)]
    written = blip.generate([blip.prepare(one) for one in images], KEYS[:12])
    for one, ours in zip(images, written, strict=True):
        assert [each.tokens for each in ours] == one_at_a_time(folder, kind.split()[0], one, prompt, beams)
    assert len({tuple(first.tokens) for first, *_ in written}) > 6  # one that says the same of all proves nothing


def test_the_text_is_that_of_the_processor(tiny: str, draw_image: Draw, config_of: MakeConfig) -> None:
    from transformers import BlipProcessor

    blip = load_blip(config_of(tiny))
    ((written,),) = blip.generate([blip.prepare(draw_image(0))], KEYS[:1])
    decode_tokens = BlipProcessor.from_pretrained(tiny).decode
    assert written.text == decode_tokens(written.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=True)


def test_images_are_normalised_as_clip_has_it(tiny: str, config_of: MakeConfig) -> None:
    import torch

    pixels = load_blip(config_of(tiny)).prepare(Image.new("RGB", (50, 20), (255, 0, 128)))
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    wanted = [(value - m) / d for value, m, d in zip((1.0, 0.0, 128 / 255), mean, deviation, strict=True)]
    assert pixels.shape == (3, 32, 32)
    torch.testing.assert_close(pixels.mean((1, 2)), torch.tensor(wanted), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["Blip", "Blip2", "Blip2 T5"])
def test_what_is_drawn_hangs_on_the_seed_and_the_image_alone(
    folder: str, draw_image: Draw, config_of: MakeConfig
) -> None:
    config = config_of(folder, top_p=0.9, num_candidates=4)
    blip = load_blip(config)
    ready = [blip.prepare(draw_image(number)) for number in range(6)]
    together = blip.generate(ready, KEYS[:6])
    backwards = blip.generate(ready[::-1], KEYS[:6][::-1])[::-1]
    alone = [blip.generate([one], [key])[0] for one, key in zip(ready, KEYS, strict=False)]
    assert tokens_of(together) == tokens_of(backwards) == tokens_of(alone)
    assert tokens_of(load_blip(config.model_copy(update={"seed": 1})).generate(ready, KEYS[:6])) != tokens_of(together)
    assert all(len({tuple(one.tokens) for one in each}) > 1 for each in together)
    assert all(5 <= len(one.tokens) <= 12 for each in together for one in each)


def tokens_of(written: Any) -> list[list[list[int]]]:
    return [[one.tokens for one in each] for each in written]


def test_the_score_of_what_is_drawn_is_the_models_own(tiny: str, draw_image: Draw, config_of: MakeConfig) -> None:
    greedy = load_blip(config_of(tiny)).generate([load_blip(config_of(tiny)).prepare(draw_image(3))], KEYS[:1])[0][0]
    narrow = load_blip(config_of(tiny, top_p=1e-6))  # a nucleus of one token is greedy
    ((drawn,),) = narrow.generate([narrow.prepare(draw_image(3))], KEYS[:1])
    assert drawn == greedy


def test_the_model_is_kept_until_it_is_to_be_forgotten(tiny: str, config_of: MakeConfig) -> None:
    kept = weakref.ref(load_blip(config_of(tiny)).loaded.model)
    assert load_blip(config_of(tiny, num_beams=2, batch_size=3)).loaded.model is kept()
    unload_blip()
    gc.collect()
    assert kept() is None


def test_a_model_that_was_exchanged_is_loaded_anew(
    tiny: str, tiny2: str, tmp_path: Path, config_of: MakeConfig
) -> None:
    place = tmp_path / "model"
    shutil.copytree(tiny, place)
    assert not load_blip(config_of(str(place))).loaded.is_blip2
    shutil.rmtree(place)
    shutil.copytree(tiny2, place)
    assert load_blip(config_of(str(place))).loaded.is_blip2


def test_the_score_is_the_mean_log_probability_of_the_tokens(
    tiny: str, draw_image: Draw, config_of: MakeConfig
) -> None:
    import torch

    blip = load_blip(config_of(tiny, no_repeat_ngram_size=0, min_length=0))
    ((written,),) = blip.generate([blip.prepare(draw_image(3))], KEYS[:1])
    ids = torch.tensor([[5, *written.tokens, 3]])
    with torch.inference_mode():
        seen = blip.loaded.model.vision_model(pixel_values=blip.prepare(draw_image(3))[None])[0]
        logits = blip.loaded.model.text_decoder(input_ids=ids[:, :-1], encoder_hidden_states=seen).logits
    logs = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[0, :, 0]
    counted = logs if len(written.tokens) < 12 else logs[:-1]
    assert written.score == pytest.approx(counted.mean().item(), abs=1e-4)


def test_words_are_put_together_as_people_write_them(tiny: str, config_of: MakeConfig) -> None:
    blip = load_blip(config_of(tiny))
    tokens = blip.loaded.processor.tokenizer("a man's red car, a dog", add_special_tokens=False).input_ids
    assert blip.decode_tokens(tokens) == "a man's red car, a dog"


def test_weights_that_are_none_are_refused_in_one_sentence(tiny: str, tmp_path: Path) -> None:
    for name in ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((Path(tiny) / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="can't be loaded"):
        load_blip(CaptionConfig(model=str(tmp_path), device="cpu"))
    save_file({}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks weights"):
        load_blip(CaptionConfig(model=str(tmp_path), device="cpu"))


def test_the_shipped_blip_describes_a_real_photo(shared_data: Path) -> None:
    model = HOUSE / "demo" / "models" / "blip"
    if not model.is_dir():
        pytest.skip("the demo's models are not there")
    blip = load_blip(CaptionConfig(model=str(model), device="cpu"))
    ((written,),) = blip.generate([blip.prepare(decode(shared_data / "subjects" / "rc_car" / "02.jpg"))], KEYS[:1])
    assert 5 <= len(written.tokens) <= 30


def test_no_token_comes_three_times_running() -> None:
    import torch

    tokens = torch.tensor([[5, 7, 7], [7, 5, 7], [7, 7, 5]])
    forbidden = forbid_third(tokens, torch.zeros(3, 9)).isinf()
    assert forbidden.nonzero().tolist() == [[0, 7]]
    assert not forbid_third(tokens[:, :1], torch.zeros(3, 9)).isinf().any()
