"""Scores are what open_clip and LAION's heads say of each image, and a run that dies is finished by the next."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from dreamloom.base.errors import UserError
from dreamloom.base.images.pixels import decode
from dreamloom.base.models.clip import Clip
from dreamloom.curate.choose import choose
from dreamloom.curate.config import ChooseConfig, NearDuplicates, ScoreConfig
from dreamloom.curate.score import check, recipes, score
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Collection, Status, Table
from dreamloom.scrape.collection.parts import stale_parts
from dreamloom.scrape.collection.shards import push_collection
from dreamloom.scrape.datasets.collection import CollectionConfig, ingest_collection
from tests.curate.conftest import noise

Make = Callable[..., Collection]
HOUSE = Path(__file__).parents[2]


def plain(folder: Path, image: Path, text: str | None) -> tuple[NDArray[np.float32], float | None]:
    """The embedding and similarity as open_clip's readme has it: one image at a time."""
    import open_clip

    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        embedding = model.encode_image(prepare(decode(image))[None], normalize=True)
        if not text:
            return embedding[0].numpy(), None
        words = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")([text]), normalize=True)
    return embedding[0].numpy(), float(embedding[0] @ words[0])


def a_head(path: Path, width: int = 16) -> Path:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(1, width, generator=generator)
    save_file({"weight": weight, "bias": torch.tensor([5.0])}, path)
    return path


def test_scores_are_those_of_plain_open_clip(make_collection: Make, tiny_clip: Path, tmp_path: Path) -> None:
    texts = ["a red circle", None, "", "a cat  sat on a mat", "  ", "x " * 90, "日本の猫"]
    collection = make_collection("c", [{"text": text} for text in texts])
    head = a_head(tmp_path / "head.safetensors")
    summary = score(collection, ScoreConfig(model=str(tiny_clip), aesthetic_head=head, batch_size=3))
    assert (summary.rows, summary.kept, summary.dropped) == (7, 7, {})
    rows, records = (collection.read(t).to_pylist() for t in (Table.SCORES, Table.RECORDS))
    weight = torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    assert [r["key"] for r in rows] == [r["key"] for r in records]
    for row, record in zip(rows, records, strict=True):
        text = (record["text"] or "").strip() and record["text"]
        embedding, similarity = plain(tiny_clip, collection.root / record["image"], text)
        assert row["embedding"] == pytest.approx(embedding, abs=1e-3)
        assert row["similarity"] == (None if similarity is None else pytest.approx(similarity, abs=3e-4))
        stored = torch.from_numpy(embedding.astype(np.float16).astype(np.float32))
        assert row["aesthetic"] == pytest.approx(float(weight[0] @ stored) + 5, abs=1e-4)


def test_the_batch_changes_speed_only(make_collection: Make, tiny_clip: Path) -> None:
    tables = []
    for batch in (1, 4, 32):
        collection = make_collection("c", [{"text": "a red circle"}] * 6)
        for part in collection.parts(Table.SCORES):
            collection.part_path(Table.SCORES, part).unlink()
        score(collection, ScoreConfig(model=str(tiny_clip), batch_size=batch, num_workers=batch))
        tables.append(collection.read(Table.SCORES))
    assert tables[0]["phash"].equals(tables[1]["phash"])
    for other in tables[1:]:
        similar = np.asarray(tables[0]["similarity"]), np.asarray(other["similarity"])
        assert np.allclose(*similar, atol=1e-6)
    config = ScoreConfig(model=str(tiny_clip))
    again = config.model_copy(update={"batch_size": 7, "num_workers": 1, "device": "cpu"})
    assert recipes(collection, config) == recipes(collection, again)


def test_a_collection_at_an_address_is_scored_and_chosen_from(
    make_collection: Make, tiny_clip: Path, tmp_path: Path
) -> None:
    here = make_collection("c", [{"text": f"a {color} circle"} for color in ("red", "blue", "red")])
    push_collection(here, f"memory:/{tmp_path}/c")
    there = Collection(f"memory:/{tmp_path}/c")
    for collection in (here, there):
        summary = score(collection, ScoreConfig(model=str(tiny_clip)))
        assert summary.kept == 3 and summary.dropped == {}
        choose([Source(collection, Role.TRAINING)], ChooseConfig(near_duplicates=NearDuplicates.SIMILAR))
    for table in (Table.RECORDS, Table.SCORES, Table.CHOICES):
        assert there.stamps(table) == here.stamps(table) != []


def test_what_can_not_be_decoded_is_counted_and_has_no_row(make_collection: Make, tiny_clip: Path) -> None:
    whole = make_collection("whole", [{}])
    data = (whole.root / whole.read(Table.RECORDS)["image"][0].as_py()).read_bytes()
    records = [{}, {"content": data[: len(data) // 2]}, {"content": b"words"}, {"status": Status.HTTP_404}, {}]
    collection = make_collection("c", records)
    (collection.root / collection.read(Table.RECORDS)["image"][4].as_py()).unlink()
    summary = score(collection, ScoreConfig(model=str(tiny_clip)))
    assert (summary.rows, summary.kept) == (4, 1)
    assert summary.dropped == {"truncated": 1, "not_an_image": 1, "missing_file": 1}
    assert len(collection.read(Table.SCORES)) == 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many images and texts CLIP was asked about."""
    counts = {"images": 0, "texts": 0}
    for name in counts:
        embed = getattr(Clip, f"embed_{name}")

        def counted(self: Any, batch: Any, embed: Any = embed, name: str = name) -> Any:
            counts[name] += len(batch)
            return embed(self, batch)

        monkeypatch.setattr(Clip, f"embed_{name}", counted)
    return counts


def test_an_image_is_seen_once_whatever_its_key_source_and_text(
    make_collection: Make, tiny_clip: Path, tmp_path: Path, asked: dict[str, int]
) -> None:
    config = ScoreConfig(model=str(tiny_clip), aesthetic_head=a_head(tmp_path / "head.safetensors"), batch_size=2)
    pictures = [noise(number) for number in range(4)]
    records = [{"key": f"a{n}", "text": f"text {n}", "content": picture} for n, picture in enumerate(pictures)]
    first = make_collection("c", records[:3])
    score(first, config)
    scores = {r["key"]: {**r, "key": None, "recipe": None} for r in first.read(Table.SCORES).to_pylist()}
    assert asked == {"images": 3, "texts": 3}

    changed = [records[1], {**records[0], "text": "another"}, *records[2:]]  # in another order, and one is new
    score(make_collection("c", changed), config)
    assert asked == {"images": 4, "texts": 5}
    score(make_collection("copies", [{**record, "key": f"b{n}"} for n, record in enumerate(changed)]), config)
    assert asked == {"images": 4, "texts": 5}
    second = {r["key"]: {**r, "key": None, "recipe": None} for r in first.read(Table.SCORES).to_pylist()}
    assert [second["a1"], second["a2"]] == [scores["a1"], scores["a2"]]

    for part in first.root.parent.glob("*/scores/*.parquet"):
        part.unlink()
    score(first, config)
    assert {r["key"]: {**r, "key": None, "recipe": None} for r in first.read(Table.SCORES).to_pylist()} == second


def test_two_projects_on_a_library_ask_clip_nothing_that_it_knows(
    make_collection: Make, tiny_clip: Path, tmp_path: Path, asked: dict[str, int]
) -> None:
    config = ScoreConfig(model=str(tiny_clip))
    library = make_collection("library", [{"text": f"text {n}"} for n in range(3)])
    score(library, config)
    assert asked == {"images": 3, "texts": 3}
    for name in ("one", "two"):
        own = Collection(tmp_path / name / "collections" / "faces")
        ingest_collection(own, CollectionConfig(path=library.root))
        score(own, config)
        assert own.read(Table.SCORES).equals(library.read(Table.SCORES))
    assert asked == {"images": 3, "texts": 3}


def test_another_head_asks_clip_for_no_image(
    make_collection: Make, tiny_clip: Path, tmp_path: Path, asked: dict[str, int]
) -> None:
    collection = make_collection("c", [{"text": None}] * 3)
    config = ScoreConfig(model=str(tiny_clip))
    score(collection, config)
    head = a_head(tmp_path / "head.safetensors")
    score(collection, config.model_copy(update={"aesthetic_head": head}))
    assert asked == {"images": 3, "texts": 0}
    assert collection.read(Table.SCORES)["aesthetic"].null_count == 0
    score(collection, config.model_copy(update={"precision": "bf16"}))
    assert asked == {"images": 6, "texts": 0}


def test_a_collection_without_images_has_an_empty_table(make_collection: Make, tiny_clip: Path) -> None:
    collection = make_collection("c", [{"status": Status.HTTP_404}])
    assert score(collection, ScoreConfig(model=str(tiny_clip))).rows == 0
    assert collection.parts(Table.SCORES) == ["00000"]
    assert stale_parts(collection, Table.SCORES, recipes(collection, ScoreConfig(model=str(tiny_clip)))) == []


def test_only_other_content_makes_scores_stale(make_collection: Make, tiny_clip: Path, tmp_path: Path) -> None:
    collection = make_collection("c", [{}, {}], part_rows=1)
    config = ScoreConfig(model=str(tiny_clip), aesthetic_head=a_head(tmp_path / "one.safetensors"))
    assert score(collection, config).parts_done == 2
    moved = config.model_copy(
        update={"aesthetic_head": (tmp_path / "one.safetensors").rename(tmp_path / "two.safetensors")}
    )
    assert score(collection, moved).parts_before == 2
    a_head(tmp_path / "two.safetensors", width=16)
    assert score(collection, moved).parts_before == 2
    assert score(collection, config.model_copy(update={"aesthetic_head": None})).parts_done == 2


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"pretrained": "laion2b"}])
def test_what_changes_scores_makes_them_stale(make_collection: Make, tiny_clip: Path, change: dict[str, Any]) -> None:
    collection = make_collection("c", [{}, {}], part_rows=1)
    config = ScoreConfig(model=str(tiny_clip))
    before, after = recipes(collection, config), recipes(collection, config.model_copy(update=change))
    assert before.keys() == after.keys()
    assert all(before[part] != after[part] for part in before)


def test_another_clip_in_the_same_folder_makes_scores_stale(
    make_collection: Make, tiny_clip: Path, tmp_path: Path
) -> None:
    collection = make_collection("c", [{}])
    clip = shutil.copytree(tiny_clip, tmp_path / "clip")
    before = recipes(collection, ScoreConfig(model=str(clip)))
    assert before == recipes(collection, ScoreConfig(model=str(tiny_clip)))
    weights = next(clip.glob("open_clip_model*"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert before != recipes(collection, ScoreConfig(model=str(clip)))


@pytest.mark.slow
def test_a_run_killed_anywhere_is_finished_by_the_next(make_collection: Make, tiny_clip: Path, crash: Any) -> None:
    undisturbed = make_collection("undisturbed", [{"text": "a cat", "key": f"k{i}"} for i in range(4)], part_rows=2)
    config = ScoreConfig(model=str(tiny_clip), num_workers=1)
    killed = Collection(Path(shutil.copytree(undisturbed.root, undisturbed.root.parent / "killed")))
    score(undisturbed, config)
    script = f"""
from pathlib import Path
from dreamloom.curate.score import score
from dreamloom.curate.config import ScoreConfig
from dreamloom.scrape.collection import Collection
score(Collection(Path({str(killed.root)!r})), ScoreConfig.model_validate_json({config.model_dump_json()!r}))
"""
    assert crash.run(script, at=10)
    assert killed.parts(Table.SCORES) == ["00000"]
    assert score(killed, config).parts_before == 1
    assert killed.read(Table.SCORES).equals(undisturbed.read(Table.SCORES))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "ViT-L-41"}, "neither a folder nor a model"),
        ({"model": "."}, "not an open_clip model"),
        ({"model": "local-dir:/nowhere"}, "not an open_clip model"),
        ({"model": "ViT-B-32", "pretrained": "/nowhere/b32.pt"}, "not there"),
        ({"aesthetic_head": Path("/nowhere/head.pth")}, "not there"),
    ],
)
def test_models_that_are_not_there_are_named_first(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        check(ScoreConfig.model_validate(change))
    with pytest.raises(UserError, match=sentence):
        score(Collection(tmp_path), ScoreConfig.model_validate(change))


def test_a_head_of_another_width_is_refused(make_collection: Make, tiny_clip: Path, tmp_path: Path) -> None:
    config = ScoreConfig(model=str(tiny_clip), aesthetic_head=a_head(tmp_path / "head.safetensors", width=12))
    with pytest.raises(UserError, match="embeddings of 12 numbers"):
        score(make_collection("c", [{}]), config)


def test_a_folder_without_weights_is_refused(make_collection: Make, tiny_clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text((tiny_clip / "open_clip_config.json").read_text())
    collection = make_collection("c", [{}])
    with pytest.raises(UserError, match="can't be loaded"):
        score(collection, ScoreConfig(model=str(folder)))
    (folder / "open_clip_model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="is not a safetensors file: it is a text"):
        score(collection, ScoreConfig(model=str(folder)))


def test_weights_of_another_model_are_refused(make_collection: Make, tiny_clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_clip, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["width"] = 64
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="are of another model"):
        score(make_collection("c", [{}]), ScoreConfig(model=str(folder)))


def test_a_tag_may_have_hyphens_as_open_clip_takes_them() -> None:
    check(ScoreConfig(model="ViT-B-32", pretrained="laion2b-s34b-b79k"))


def test_openai_weights_get_the_activation_they_were_trained_with() -> None:
    """GELU in its place changes V2's score of one published image from 5.05 to 4.44."""
    from open_clip import get_model_config
    from open_clip.pretrained import get_pretrained_cfg

    assert get_model_config(ScoreConfig().model)["quick_gelu"]
    assert get_pretrained_cfg("ViT-L-14", "openai")["quick_gelu"]


def test_asking_what_is_stale_imports_no_torch(make_collection: Make, tiny_clip: Path) -> None:
    collection = make_collection("c", [{}])
    script = f"""
import sys
from pathlib import Path
from dreamloom.curate.score import check, recipes
from dreamloom.curate.config import ScoreConfig
from dreamloom.scrape.collection import Collection
config = ScoreConfig(model={str(tiny_clip)!r})
check(config)
print(recipes(Collection(Path({str(collection.root)!r})), config), file=sys.stderr)
print([m for m in ("torch", "open_clip", "imagehash", "scipy") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HOUSE, check=True)
    assert json.loads(done.stdout) == []
