"""Sample prompts: sd-scripts' lines, EveryDream 2's JSON, any encoding, and sentences for what is wrong."""

from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.prompts import SamplePrompt, check_prompts, parse_line, read_prompts

CONFIG = TrainConfig(resolution=512)

EVERYDREAM = """{
  "batch_size": 3, "seed": 555, "cfgs": [7, 4], "scheduler": "dpm++", "num_inference_steps": 15,
  "show_progress_bars": true, "generate_samples_every_n_steps": 200, "generate_pretrain_samples": true,
  "samples": [
    {"prompt": "a man sitting on a sofa", "negative_prompt": "distorted, deformed"},
    {"prompt": "a man riding a bicycle", "seed": -1, "aspect_ratio": 1.77778},
    {"random_caption": true, "seed": 5, "cfgs": [1, 11], "size": [640, 384]}
  ]
}"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a red car", {"prompt": "a red car"}),
        ("two -- dashes --", {"prompt": "two -- dashes --"}),
        (
            "a red car --n blurry, dark --w 640 --h 384 --d 7 --s 25 --l 7.5 --ss euler_a",
            {
                "prompt": "a red car", "negative_prompt": "blurry, dark", "size": (640, 384), "seed": 7,
                "num_inference_steps": 25, "cfgs": [7.5], "scheduler": "euler_a",
            },
        ),
        ("a red car --h 768 --L 7,4,1.01", {"prompt": "a red car", "size": (512, 768), "cfgs": [7, 4, 1.01]}),
    ],
)  # fmt: skip
def test_lines_are_read_as_sd_scripts_reads_them(line: str, expected: dict[str, Any]) -> None:
    assert parse_line(line, CONFIG) == SamplePrompt.model_validate(expected)


def test_everydreams_json_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "sample_prompts.json"
    file.write_text(EVERYDREAM)
    shared = {"cfgs": [7, 4], "scheduler": "dpm++", "num_inference_steps": 15}
    sofa = {"prompt": "a man sitting on a sofa", "negative_prompt": "distorted, deformed", "seed": 555}
    bicycle = {"prompt": "a man riding a bicycle", "seed": -1, "size": (704, 384)}
    random = {"random_caption": True, "seed": 5, "cfgs": [1, 11], "size": (640, 384)}
    expected = [SamplePrompt.model_validate(shared | each) for each in (sofa, bicycle, random)]
    assert read_prompts(file, CONFIG) == expected


def test_sd_scripts_json_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "prompts.JSON"
    file.write_text('["a cat --s 9", {"prompt": "a dog", "width": 640, "scale": 5, "sample_steps": 3, "seed": 1}]')
    cat, dog = read_prompts(file, CONFIG)
    assert (cat.prompt, cat.num_inference_steps) == ("a cat", 9)
    assert (dog.size, dog.cfgs, dog.num_inference_steps, dog.seed) == ((640, 512), [5], 3, 1)


def test_sd_scripts_toml_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "prompts.toml"
    file.write_text(
        '[prompt]\nwidth = 640\n[[prompt.subset]]\nprompt = "a cat"\n[[prompt.subset]]\nprompt = "b"\nwidth = 8'
    )
    assert [(each.prompt, each.size) for each in read_prompts(file, CONFIG)] == [("a cat", (640, 512)), ("b", (8, 512))]
    for broken in ("[prompt]\nwidth = 640", "[prompt"):
        file.write_text(broken)
        with pytest.raises(UserError, match=r"prompts\.toml can't be read"):
            read_prompts(file, CONFIG)


def test_what_no_tokenizer_can_read_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text('[{"prompt": "a \\ud800 cat", "negative_prompt": "\\udc00"}]')
    (prompt,) = read_prompts(tmp_path / "prompts.json", CONFIG)
    assert (prompt.prompt, prompt.negative_prompt) == ("a \ufffd cat", "\ufffd")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("suffix", ["txt", "json"])
def test_files_are_read_in_any_encoding(tmp_path: Path, encoding: str, suffix: str) -> None:
    file = tmp_path / f"prompts.{suffix}"
    file.write_bytes(("  # ein Café\r\nein Café\r\n" if suffix == "txt" else '["ein Café"]').encode(encoding))
    assert [prompt.prompt for prompt in read_prompts(file, CONFIG)] == ["ein Café"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"samples": [{"promt": "x"}]}', "promt: Extra inputs"),
        ('{"samples": [{"prompt": "x", "seed": -2}]}', "seed: .* greater than or equal to -1"),
        ('{"samples": [{"prompt": "x"}], "scheduler": "magic"}', "no scheduler magic; choose of ddim"),
        ('{"samples": [{"prompt": "x"}], "cfg": [1]}', "cfg: Extra inputs"),
        ('[{"prompt": "x", "width": 100000}]', "width: .* less than or equal to 4096"),
        ('[["x"]]', "can't be read"),
        ("[" * 90_000, "can't be read"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "sample_prompts.json"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        check_prompts(TrainConfig(sample_prompts_file=file))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a car --cn x.png", "--cn is no option of a prompt; those are --n, --w"),
        ("a car --hd", "--hd is no option"),
        ("a car --hr_scale 2", "--hr_scale is no option"),
        ("a car --w=64", "--w=64 is no option"),
        ("a car --w wide", "width: .*integer"),
        ("a car --n", "--n has no value"),
        ("a car --n --w 64", "--n has no value"),
    ],
)
def test_an_option_that_is_unknown_or_wrong_is_said(line: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_prompts(TrainConfig(sample_prompts=[line]))
