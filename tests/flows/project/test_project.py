"""A project.yaml that can't be is refused in sentences that name the key, before any work."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.files.remote import address_of
from dreamloom.flows.chain.chain import levels
from dreamloom.flows.commands.cli import run
from dreamloom.flows.project.project import load_project
from dreamloom.flows.project.sources import kind_of
from dreamloom.train.evaluate.config import as_trained


def refused(file: Path) -> str:
    with pytest.raises(UserError) as error:
        load_project(file)
    return str(error.value)


KINDS = ["laion", "folder", "ffhq", "coco", "imagenet", "huggingface", "webdataset", "zip", "collection"]
WRONG = [
    (("sources", "circles", "pth"), "x", "sources.circles.pth: unknown key; did you mean path?"),
    (
        ("sources", "circles", "kind"),
        "foldr",
        f"sources.circles.kind: foldr is none of {', '.join(KINDS)}",
    ),
    (("sources", "circles", "role"), None, "sources.circles.role: is missing"),
    (("sources", "circles", "role"), "ground_truth", "sources: none has role: training, so there is nothing to learn"),
    (("sources", "circles", "share"), 2, "sources.circles: share is for ground truth; use multiply to set how often"),
    (("sources", "squares", "multiply"), 2, "sources.squares: multiply is for training images; use share to set"),
    (("sources", "a/b"), {"kind": "folder", "role": "training", "path": "."}, "sources: 'a/b' names a folder, so"),
    (("sources", "CIRCLES"), {"kind": "folder", "role": "training", "path": "."}, "sources: two names differ in cap"),
    (("sources", "circles", "path"), "nowhere", "sources.circles.path: {folder}/nowhere is not there"),
    (
        ("sources", "web"),
        {"kind": "laion", "role": "ground_truth", "index": "x/*.parquet"},
        "sources.web.index: {folder}/x/*.parquet is",
    ),
    (
        ("caption", "templates"),
        {"squres": ["a"]},
        "caption.templates.squres: there is no such source; did you mean squa",
    ),
    (("caption", "clip"), {"model": "./no model"}, "caption.clip.model: {folder}/no model is not there"),
    (("balance", "ratio"), 0, "balance.ratio: should be greater than 0, not 0"),
    (("train", "batch"), 4, "train.batch: is called batch_size now"),
    (("train", "clip"), 1.0, "train.clip: is called max_grad_norm now"),
    (("train", "keep"), 3, "train.keep: is called checkpoints_total_limit now"),
    (("caption", "keep"), ["human"], "caption.keep: is called keep_kinds now"),
    (("caption", "clip", "weights"), "openai", "caption.clip.weights: is called pretrained now"),
    (("scrape", "format"), "png", "scrape.format: is called encode_format now"),
    (("evaluate", "average"), True, "evaluate.average: is called use_ema now"),
    (("export", "merged"), True, "export.merged: is called merge_lora now"),
    (
        ("sources", "web"),
        {"kind": "laion", "role": "ground_truth", "index": ["circles"], "once_per": "url"},
        "sources.web.once_per: is called deduplicate_by now",
    ),
    (("sources", "squares", "path"), "circles/.", "sources.squares.path: {folder}/circles is the folder of circles, t"),
    (("balance", "ratoi"), 1, "balance.ratoi: unknown key; did you mean ratio?"),
    (("train", "base"), "./circles", "train: {folder}/circles is not a Stable Diffusion model in diffusers' format"),
    (("train", "base"), "./no model", "train.base: {folder}/no model is not there"),
    (("train", "resolution"), 65, "train: resolution 65 is not a multiple of bucket_reso_steps 64"),
    (("caption", "model"), "circles", "caption: The captioning model {folder}/circles has no config.json of a model;"),
    (("score",), {"model": "squares"}, "score: {folder}/squares is not an open_clip model (it has no open_clip_c"),
    (("score",), {"aesthetic_head": "head.pth"}, "score.aesthetic_head: {folder}/head.pth is not there"),
    (("choose", "min_aesthetic"), 5, "choose.min_aesthetic: needs aesthetic scores; set score.aesthetic_head, or"),
    (("choose", "min_similarity"), 0.3, "choose.min_similarity: needs scores; write a score section, or leave it out"),
    (("train", "epochs"), "many", "train.epochs: should be a valid integer, unable to parse string as an integer, not"),
    (("workspace",), None, "workspace: is missing"),
    (("workspace",), "project.yaml", "workspace: {folder}/project.yaml is a file; name a folder."),
]


@pytest.mark.parametrize(("keys", "value", "sentence"), WRONG, ids=[".".join(keys) for keys, _, _ in WRONG])
def test_names_the_key_that_is_wrong(
    small: Any, keys: tuple[str, ...], value: Any, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small.change(*keys, to=value)
    expected = f"{small.file}: {sentence.replace('{folder}', str(small.folder))}"
    assert refused(small.file).startswith(expected)
    assert "\n" not in refused(small.file)
    before = sorted(small.folder.rglob("*"))
    assert run(["run", str(small.file)]) == 2
    assert capsys.readouterr().err.startswith(expected)
    assert sorted(small.folder.rglob("*")) == before, "something was written before the refusal"


def test_each_of_several_errors_has_its_line(small: Any) -> None:
    small.change("balance", "ratio", to=-1)
    small.change("train", "epoch", to=3)
    lines = refused(small.file).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["balance.ratio", "train.epoch"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [x", "line 1: expected ',' or ']'"),
        ("name: x\nname: y\n", "line 2: the key name is repeated"),
        ("sources:\n  a: {kind: folder, kind: coco}\n", "line 2: the key kind is repeated"),
        ("- a\n- b\n", "has no keys and values"),
        ("", "has no keys and values"),
        ("name: \x07", "is not YAML"),
    ],
)
def test_says_where_the_yaml_is_wrong(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "project.yaml"
    file.write_text(text)
    assert sentence in refused(file)


def test_a_file_that_can_t_be_read_is_named(tmp_path: Path) -> None:
    assert (
        refused(tmp_path / "no.yaml")
        == f"{tmp_path}/no.yaml can't be read (No such file or directory); name a project.yaml."
    )


def test_words_stay_words_and_any_encoding_is_read(small: Any) -> None:
    text = re.sub(r"^name: .*$", "name: no  # café", small.file.read_text(), flags=re.MULTILINE)
    for encoding in ("utf-16", "latin-1"):
        small.file.write_text(text, encoding)
        assert load_project(small.file).name == "no"


def test_relative_paths_begin_where_the_file_lies(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (small.folder / "elsewhere").mkdir()
    monkeypatch.chdir(small.folder / "elsewhere")
    for path in (small.file, Path("../project.yaml"), Path("..")):
        project = load_project(path)
        circles: Any = project.sources["circles"]
        for found in (project.workspace, circles.path):
            assert found.is_absolute()
            assert os.path.realpath(found.parent) == os.path.realpath(small.folder)


def test_a_model_may_be_named_by_hub_id_or_by_place(small: Any) -> None:
    small.change("caption", "model", to="some/blip")
    assert load_project(small.file).caption.model == "some/blip"
    (small.folder / "models").mkdir()
    small.change("caption", "model", to="models/blip")  # its folder is there, so it is meant as a place
    assert "models/blip is not there" in refused(small.file)


def test_a_source_s_own_edits_take_the_place_of_the_section_s(small: Any) -> None:
    small.change("caption", "edit", to={"suffix": ", outdoors"})
    small.change("sources", "circles", "edit", to={"replace": {"a circle": "a zorb"}})
    project = small.load()
    found = {name: project.caption_config(name).edit for name in project.sources}
    assert (found["circles"].replace, found["circles"].suffix) == ({"a circle": "a zorb"}, "")
    assert found["squares"].suffix == ", outdoors"


def test_evaluate_takes_from_train_what_it_does_not_say(small: Any) -> None:
    small.change("evaluate", to={"eval_timesteps": 3, "batch_size": 7})
    project = small.load()
    assert project.evaluate is not None
    config = as_trained(project.train, project.evaluate)
    assert (config.eval_timesteps, config.batch_size, config.resolution) == (3, 7, 64)
    assert config.seed == project.train.seed


def test_an_index_may_lie_far_away(small: Any) -> None:
    index = ["s3://bucket/laion", "hf://datasets/x/y/*.parquet"]
    small.change("sources", "web", to={"kind": "laion", "role": "ground_truth", "index": index})
    assert small.load().sources["web"].index == index
    for kind in ("webdataset", "collection"):
        small.change("sources", "web", to={"kind": kind, "role": "ground_truth", "path": "s3://bucket/people"})
        assert address_of(small.load().sources["web"].path) == "s3://bucket/people"


def test_other_keys_are_paths_of_this_machine(small: Any) -> None:
    keys = ["sources.circles.path", "score.aesthetic_head", "train.latent_cache", "train.base"]
    for key in keys:
        if key == "score.aesthetic_head":
            small.change("score", to={})
        small.change(*key.split("."), to="s3://bucket/x")
    told = refused(small.file)
    for key in keys:
        assert f"{key}: s3://bucket/x is an address, and " in told, told


def test_coco_without_photos_is_downloaded(small: Any) -> None:
    photo = {"id": 1, "file_name": "1.jpg", "coco_url": "http://h/1.jpg", "license": 4}
    (small.folder / "coco.json").write_text(json.dumps({"images": [photo], "annotations": []}))
    small.change("sources", "scenes", to={"kind": "coco", "role": "ground_truth", "annotations": "coco.json"})
    scenes = small.load().sources["scenes"]
    titles = [step.title for level in levels(small.load()) for branch in level.branches for step in branch]
    assert titles[titles.index("ingest scenes") + 1] == "scrape scenes"
    assert kind_of(scenes).measure(scenes).count == 1


def test_an_index_may_be_one_pattern_or_several(small: Any) -> None:
    for name in ("a.parquet", "b.parquet"):
        (small.folder / name).touch()
    for index in ("*.parquet", ["a.parquet", "b.parquet"]):
        small.change("sources", "web", to={"kind": "laion", "role": "ground_truth", "index": index})
        found = small.load().sources["web"].index
        assert [Path(pattern).parent for pattern in found] == [small.folder] * len(found)


def test_captions_are_ranked_by_the_clip_that_scores_unless_they_name_one(small: Any) -> None:
    small.change("score", to={"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79k", "precision": "bf16"})
    small.change("caption", "templates", to={"squares": ["a square"]})
    circles = small.load().caption_config("circles")
    assert (circles.clip.model, circles.clip.pretrained, circles.clip.precision) == (
        "ViT-B-32",
        "laion2b_s34b_b79k",
        "bf16",
    )
    assert circles.templates == {}
    assert small.load().caption_config("squares").templates == {"squares": ("a square",)}
    small.change("caption", "clip", to={"precision": "fp32"})
    assert (
        small.load().caption_config("circles").clip.model,
        small.load().caption_config("circles").clip.precision,
    ) == (
        "ViT-B-32",
        "fp32",
    )
    small.change("caption", "clip", to={"model": "ViT-L-14"})
    assert small.load().caption_config("circles").clip.pretrained == "openai"


def test_a_source_that_is_not_there_has_no_collection(small: Any) -> None:
    with pytest.raises(UserError, match=r"small has no source circle; did you mean circles\?"):
        small.load().collection("circle")


def test_choose_drops_what_train_would_leave_out_unless_it_says_otherwise(small: Any) -> None:
    small.change("train", "resolution", to=128)
    config = small.load().choose_config()
    assert (config.resolution, config.bucket_reso_steps) == (128, small.load().train.bucket_reso_steps)
    small.change("train", "folder_resolutions", to=["squares=256"])
    config = small.load().choose_config()
    assert [config.resolution_of(name) for name in ("circles", "squares")] == [128, 256]
    small.change("choose", to={"resolution": None})
    assert small.load().choose_config().resolution_of("squares") is None


def test_a_ratio_left_to_the_run_needs_a_limit_and_names_the_ground_truth(small: Any) -> None:
    small.change("balance", "ratio", to="auto")
    assert "balance.ratio: auto holds a limit; set train.limit_mean or train.limit_worst" in refused(small.file)
    small.change("train", "limit_worst", to=0.05)
    train = small.load().train_config()
    assert (train.auto_ratio, train.ground_truth) == (True, ["squares"])
    small.change("train", "evaluate_every_n_steps", to=0)
    assert "decided at evaluations; set train.evaluate_every_n_steps" in refused(small.file)
    small.change("balance", "ratio", to="most")
    assert "balance.ratio" in refused(small.file)
