"""CaptionTokenizer are counted as transformers counts them, for any model's vocabulary."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import CLIPTokenizer, T5TokenizerFast

from dreamloom.base.errors import UserError
from dreamloom.caption.tokens import LIMIT, CaptionTokenizer, load_t5_tokenizer, load_tokenizer, measure_captions

HOUSE = Path(__file__).parents[2]
DEMO = HOUSE / "demo" / "models" / "stable-diffusion"


def by_transformers(tokenizer: CLIPTokenizer, captions: list[str]) -> list[int]:
    return [len(tokens) for tokens in tokenizer(captions, verbose=False).input_ids]


@pytest.fixture(scope="module")
def real(shared_data: Path) -> list[str]:
    """More than 1,000 captions that people and web pages wrote."""
    laion = pq.read_table(shared_data / "laion" / "laion2b-en-sample.parquet")["TEXT"].to_pylist()
    coco = json.loads((shared_data / "coco" / "annotations" / "captions_sample.json").read_bytes())["annotations"]
    return [text for text in laion if text] + [one["caption"] for one in coco]


def test_real_captions_have_as_many_tokens_as_transformers_says(
    real: list[str], shared_data: Path, tmp_path: Path
) -> None:
    assert len(real) > 1000
    shutil.copytree(shared_data / "clip_tokenizer", tmp_path / "tokenizer")
    wanted = by_transformers(CLIPTokenizer.from_pretrained(tmp_path / "tokenizer"), real)
    assert load_tokenizer(str(tmp_path)).count(real) == wanted
    assert load_tokenizer().count(real) == wanted  # CLIP's own vocabulary needs no model
    assert max(wanted) > LIMIT


@given(st.text() | st.text("aİıß 漢\u0301'ts<|endoftext|>🚲\x00_9", max_size=40))
@example("a <|endoftext|> b<|startoftext|>")
@example("They're 'S \r\n\x85 café cafe\u0301")
def test_any_text_has_as_many_tokens_as_transformers_says(text: str) -> None:
    assert demo_tokens().count([text]) == by_transformers(_demo, [text])


_demo = CLIPTokenizer.from_pretrained(DEMO / "tokenizer")


def demo_tokens() -> CaptionTokenizer:
    return load_tokenizer(str(DEMO))


def test_the_limit_is_the_model_s() -> None:
    assert demo_tokens().limit == 32
    assert load_tokenizer().limit == load_tokenizer("no/such-model").limit == 77


def test_the_worst_caption_is_named() -> None:
    captions = [("a.jpg", "a cat"), ("b.jpg", "cat " * 90), ("c.jpg", "cat " * 75), ("d.jpg", "cat " * 76)]
    done = []
    found = measure_captions(captions, load_tokenizer(), lambda d, total, note="": done.append((d, total)))
    assert (found.captions, found.cut, found.longest, found.longest_image) == (4, 2, 92, "b.jpg")
    assert str(found) == "tokens: 2 of 4 captions will be cut, as CLIP reads 77, both ends counted; most: 92, of b.jpg"
    assert done == [(4, 4)]
    assert (
        str(measure_captions(captions[:1], load_tokenizer()))
        == "tokens: none of 1 captions is cut, CLIP reads 77; most: 4"
    )


def test_t5_counts_by_its_own_vocabulary(tmp_path: Path) -> None:
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((chr(97 + n), -2.0) for n in range(26))]
    theirs = T5TokenizerFast(vocab=words, extra_ids=0)
    theirs.save_pretrained(tmp_path / "tokenizer_3")
    ours = load_t5_tokenizer(str(tmp_path), 77)
    assert ours is not None and load_t5_tokenizer("no/such-model") is load_t5_tokenizer(None) is None
    captions = ["a cat", "", "cat " * 40]
    assert ours.count(captions) == [len(ids) for ids in theirs(captions).input_ids]
    found = str(measure_captions([("a.jpg", caption) for caption in captions], ours))
    assert found.startswith("tokens: 1 of 3 captions will be cut, as T5 reads 77, the end counted; most: ")


def test_half_a_surrogate_is_counted_too() -> None:
    assert load_tokenizer().count(["a \udc80 b"]) == load_tokenizer().count(["a ? b"])


def test_a_broken_tokenizer_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text("{")
    (tmp_path / "tokenizer" / "merges.txt").write_text("")
    with pytest.raises(UserError, match=r"The tokenizer of .* can't be read"):
        load_tokenizer(str(tmp_path))


def test_torch_is_not_imported() -> None:
    script = (
        "import sys; from dreamloom.caption.tokens import load_tokenizer; "
        "load_tokenizer().count(['a']); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=HOUSE)
