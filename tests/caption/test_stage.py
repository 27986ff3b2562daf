"""What is kept, written, chosen, doubted, dropped and taken over; and what a change makes again."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.caption.captioners.blip import Blip
from dreamloom.caption.config import CaptionConfig, EditConfig
from dreamloom.caption.edit import edit
from dreamloom.caption.edit_collection import edit_captions, preview_edits
from dreamloom.caption.sidecar import read_caption
from dreamloom.caption.stage import caption, recipes, remaining_share
from dreamloom.scrape.collection import CaptionKind, Choice, Collection, Table
from dreamloom.scrape.collection.decisions import Decision, What
from dreamloom.scrape.datasets.collection import CollectionConfig, ingest_collection
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder

HOUSE = Path(__file__).parents[2]
CLIP = ClipConfig(model=str(HOUSE / "demo" / "models" / "clip"))
FLOOR = {"clip": CLIP, "doubtful_below": 0.0}
Make = Callable[..., Collection]
MakeConfig = Callable[..., CaptionConfig]


def captions(collection: Collection) -> list[dict[str, Any]]:
    return list(collection.read(Table.CAPTIONS).to_pylist())


def choose(collection: Collection, kinds: list[Choice], stamp: str = "r") -> list[str]:
    """Writes choices; gives all keys."""
    keys: list[str] = collection.read(Table.RECORDS).column("key").to_pylist()
    rows = pa.table({"key": keys, "choice": [str(kind) for kind in kinds]})
    summary = Summary(rows=len(keys), kept=len(keys))
    collection.write(Table.CHOICES, "00000", rows, recipe=stamp, config=StageConfig(), summary=summary)
    return keys


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images BLIP was asked about, a batch."""
    counts: list[int] = []
    generate = Blip.generate

    def counted(self: Any, images: Any, keys: Any) -> Any:
        counts.append(len(keys))
        return generate(self, images, keys)

    monkeypatch.setattr(Blip, "generate", counted)
    return counts


def test_captions_of_people_are_kept_and_the_others_written(
    tiny: str, make_collection: Make, config_of: MakeConfig
) -> None:
    collection = make_collection()
    seen: list[tuple[int, int | None]] = []
    config = config_of(tiny, batch_size=2)
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


def test_what_is_kept_is_for_the_config_to_say(tiny: str, make_collection: Make, config_of: MakeConfig) -> None:
    collection = make_collection(count=3)
    caption(collection, config_of(tiny, keep_kinds=[]))
    assert {row["kind"] for row in captions(collection)} == {CaptionKind.MODEL}
    template = make_collection("template", count=3, caption="")
    caption(template, config_of(tiny, keep_kinds=["template"]))
    assert {(row["caption"], row["kind"]) for row in captions(template)} == {("", CaptionKind.TEMPLATE)}


def test_only_what_was_chosen_is_captioned(tiny: str, make_collection: Make, config_of: MakeConfig) -> None:
    collection = make_collection(count=6)
    keys = collection.read(Table.RECORDS).column("key").to_pylist()
    before = recipes(collection, config_of(tiny))
    kinds = [Choice.KEPT, Choice.DUPLICATE, Choice.KEPT, Choice.KEPT, Choice.LOW_AESTHETIC, Choice.KEPT]
    rows = pa.table({"key": keys, "choice": [str(kind) for kind in kinds]})
    summary = Summary(rows=6, kept=6)
    collection.write(Table.CHOICES, "00000", rows, recipe="r", config=StageConfig(), summary=summary)
    assert recipes(collection, config_of(tiny)) != before
    assert caption(collection, config_of(tiny)).rows == 4
    assert [row["key"] for row in captions(collection)] == [keys[i] for i in (0, 2, 3, 5)]


def test_an_image_that_went_away_is_counted(tiny: str, make_collection: Make, config_of: MakeConfig) -> None:
    collection = make_collection()
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


def test_the_table_does_not_depend_on_batch_or_threads(tiny: str, make_collection: Make, config_of: MakeConfig) -> None:
    tables = []
    for batch, workers in [(1, 1), (7, 3)]:
        collection = make_collection(f"{batch}")
        caption(collection, config_of(tiny, batch_size=batch, num_workers=workers, keep_kinds=[]))
        tables.append(collection.read(Table.CAPTIONS).drop(["key"]))
    assert tables[0].equals(tables[1])


def test_settings_of_speed_make_nothing_again(tiny: str, make_collection: Make, config_of: MakeConfig) -> None:
    collection = make_collection(count=2)
    config = config_of(tiny)
    before = recipes(collection, config)
    assert recipes(collection, config_of(tiny, batch_size=3, num_workers=1)) == before
    changes: list[dict[str, Any]] = [{"num_beams": 2}, {"prompt": "a"}, {"precision": "bf16"}, {"keep_kinds": ["alt"]}]
    for change in changes:
        assert recipes(collection, config_of(tiny, **change)) != before


def test_bf16_writes_captions_too(
    tiny: str, tiny2: str, tiny_t5: str, make_collection: Make, config_of: MakeConfig
) -> None:
    collection = make_collection(count=4)
    for model in (tiny, tiny2, tiny_t5):
        caption(collection, config_of(model, precision="bf16", keep_kinds=[]))
        assert all(row["score"] < 0 and row["model"] == model for row in captions(collection))


def test_a_plan_loads_no_model() -> None:
    code = (
        "import sys; from pathlib import Path; from dreamloom.scrape.collection import Collection\n"
        "from dreamloom.caption.config import CaptionConfig; from dreamloom.caption.check import check\n"
        "from dreamloom.caption.stage import recipes\n"
        "check(CaptionConfig()); recipes(Collection(Path('nowhere')), CaptionConfig())\n"
        "print(*{'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOUSE)
    assert done.stdout.strip() == ""


def test_the_best_of_the_candidates_is_taken_and_all_are_kept(
    tiny: str, make_collection: Make, config_of: MakeConfig
) -> None:
    collection = make_collection()
    config = config_of(tiny, keep_kinds=[], top_p=0.9, num_candidates=4, clip=CLIP)
    caption(collection, config)
    rows = captions(collection)
    for row in rows:
        found = row["candidates"]
        similarities = sorted((one["similarity"] for one in found), reverse=True)
        assert len(found) == 4
        assert {one["kind"] for one in found} == {CaptionKind.MODEL}
        (chosen, *_) = [one for one in found if one["similarity"] == similarities[0]]
        assert (row["caption"], row["score"], row["similarity"]) == tuple(
            chosen[name] for name in ("caption", "score", "similarity")
        )
        assert row["margin"] == pytest.approx(similarities[0] - similarities[1], abs=1e-4)
        assert (row["clip"], row["model"], row["doubtful"]) == (CLIP.model, tiny, None)
    assert any(row["caption"] != row["candidates"][0]["caption"] for row in rows)


def test_a_caption_below_the_floor_is_doubtful_and_goes_on(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int]
) -> None:
    collection = make_collection()
    config = config_of(tiny, clip=CLIP, doubtful_below=-1.0)
    assert caption(collection, config).marked == {}
    written = [row for row in captions(collection) if row["kind"] == CaptionKind.MODEL]
    assert [row["doubtful"] for row in written] == [False] * 5
    floor = round(sorted(row["similarity"] for row in written)[2], 4)
    asked.clear()
    summary = caption(collection, config.model_copy(update={"doubtful_below": floor}))
    assert (summary.kept, summary.marked) == (10, {"doubtful": 2})
    rows = captions(collection)
    assert [row["doubtful"] for row in rows if row["kind"] == CaptionKind.HUMAN] == [None] * 5
    assert sum(row["doubtful"] is True for row in rows) == 2
    assert asked == []  # another floor asks no model


def test_alt_text_stays_where_clip_finds_it_better(tiny: str, make_collection: Make, config_of: MakeConfig) -> None:
    collection = make_collection()
    records = collection.read(Table.RECORDS)
    alt = pa.array([CaptionKind.ALT if text else CaptionKind.NONE for text in records["text"].to_pylist()])
    records = records.set_column(records.schema.get_field_index("text_kind"), "text_kind", alt.cast(pa.string()))
    made = collection.summary(Table.RECORDS)
    collection.write(Table.RECORDS, "00000", records, recipe="alt", config=StageConfig(), summary=made)
    caption(collection, config_of(tiny, clip=CLIP))
    assert {row["kind"] for row in captions(collection)} == {CaptionKind.MODEL}
    caption(collection, config_of(tiny, clip=CLIP, keep_alt_text_if_better=True))
    rows = captions(collection)
    assert [len(row["candidates"]) for row in rows] == [2 if text else 1 for text in records["text"].to_pylist()]
    for row in rows:
        best = max(row["candidates"], key=lambda one: one["similarity"])
        assert (row["caption"], row["kind"], row["similarity"]) == (best["caption"], best["kind"], best["similarity"])
        assert (row["model"] is None) == (row["kind"] == CaptionKind.ALT)
    assert any(row["kind"] == CaptionKind.ALT for row in rows)


def test_a_class_takes_the_likeliest_of_its_templates(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int]
) -> None:
    texts = ("a big red circle", "a small blue square on a white background", "a photo of a green heart")
    collection = make_collection(caption="a thing")
    config = config_of(tiny, clip=CLIP, templates={"work": texts})
    caption(collection, config)
    rows = captions(collection)
    assert {row["kind"] for row in rows} == {CaptionKind.TEMPLATE}
    for row in rows:
        assert [one["caption"] for one in row["candidates"]] == list(texts)
        best, second, _ = sorted(row["candidates"], key=lambda one: -one["similarity"])
        assert row["caption"] == best["caption"]
        assert row["margin"] == pytest.approx(best["similarity"] - second["similarity"], abs=1e-4)
    assert asked == []
    with pytest.raises(UserError, match=r"templates\.wrok: there is no such source; this collection is called work"):
        caption(collection, config_of(tiny, clip=CLIP, templates={"wrok": texts}))
    human = make_collection("human", count=4)
    caption(human, config)
    kinds = {row["kind"]: row["caption"] for row in captions(human)}
    assert (set(kinds), kinds["human"]) == ({CaptionKind.HUMAN, CaptionKind.TEMPLATE}, "a red car")


def test_other_choices_ask_the_model_about_new_images_only(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int]
) -> None:
    config = config_of(tiny, keep_kinds=[])
    anew = make_collection("anew", count=6)
    choose(anew, [Choice.KEPT] * 5 + [Choice.DUPLICATE])
    caption(anew, config)
    collection = make_collection(count=6)
    choose(collection, [Choice.KEPT, Choice.KEPT, Choice.KEPT, Choice.DUPLICATE, Choice.DUPLICATE, Choice.KEPT])
    caption(collection, config)
    asked.clear()
    choose(collection, [Choice.KEPT] * 5 + [Choice.DUPLICATE], "another")
    summary = caption(collection, config)
    assert (summary.parts_done, summary.kept, asked) == (1, 5, [2])
    assert collection.read(Table.CAPTIONS).equals(anew.read(Table.CAPTIONS))  # as if chosen so at once
    choose(collection, [Choice.KEPT] * 5 + [Choice.DUPLICATE], "a third")
    asked.clear()
    caption(collection, config)
    assert asked == []


def test_captions_that_a_library_has_are_written_no_second_time(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int], tmp_path: Path
) -> None:
    library, config = make_collection(count=4), config_of(tiny, keep_kinds=[])
    caption(library, config)
    own = Collection(tmp_path / "another" / "collections" / "mine")
    ingest_collection(own, CollectionConfig(path=library.root))
    asked.clear()
    caption(own, config)
    assert own.read(Table.CAPTIONS).equals(library.read(Table.CAPTIONS))
    taken = Collection(tmp_path / "third" / "collections" / "mine")
    ingest_collection(taken, CollectionConfig(path=library.root, take_captions=True))
    caption(taken, config_of(tiny, keep_kinds=["human", "model"]))
    assert captions(taken)[0]["caption"] == captions(library)[0]["caption"]
    assert asked == []


def test_a_model_that_was_moved_is_asked_nothing_again(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int], tmp_path: Path
) -> None:
    collection = make_collection(count=4)
    caption(collection, config_of(tiny))
    moved = shutil.copytree(tiny, tmp_path / "moved")
    asked.clear()
    assert caption(collection, config_of(str(moved))).parts_done == 1
    assert asked == []
    assert {row["model"] for row in captions(collection)} == {None, str(moved)}


def test_another_image_of_the_same_name_is_looked_at(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int], draw_image: Any
) -> None:
    collection = make_collection(count=4)
    caption(collection, config_of(tiny, keep_kinds=[]))
    before = captions(collection)
    draw_image(5).save(collection.root.parent / "pictures" / "02.png")
    again = make_collection(count=0)
    asked.clear()
    caption(again, config_of(tiny, keep_kinds=[]))
    assert asked == [1]
    after = captions(again)
    assert [a["caption"] != b["caption"] for a, b in zip(before, after, strict=True)].count(True) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"num_beams": 2},
        {"prompt": "a"},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"top_p": 0.5},
        {"min_length": 6},
    ],
)
def test_another_way_to_write_asks_about_all(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int], change: dict[str, Any]
) -> None:
    collection = make_collection(count=4)
    caption(collection, config_of(tiny))
    asked.clear()
    caption(collection, config_of(tiny, **change))
    assert asked == [2]


def test_another_ranking_asks_the_captioning_model_nothing(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int]
) -> None:
    collection = make_collection()
    beams = config_of(tiny, num_beams=3, keep_kinds=[])
    ways = [{}, {"clip": CLIP, "doubtful_below": 0.1}, {"clip": CLIP, "keep_alt_text_if_better": True}, {}]
    for number, way in enumerate(ways):
        asked.clear()
        caption(collection, beams.model_copy(update=way))
        assert asked == ([10] if number == 0 else [])
        anew = make_collection(f"anew{number}")
        caption(anew, beams.model_copy(update=way))
        assert collection.read(Table.CAPTIONS).equals(anew.read(Table.CAPTIONS))  # as if asked so at once


def test_new_images_are_described_and_the_others_only_ranked(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int]
) -> None:
    collection = make_collection(count=6)
    choose(collection, [Choice.KEPT] * 4 + [Choice.DUPLICATE] * 2)
    caption(collection, config_of(tiny, keep_kinds=[]))
    choose(collection, [Choice.KEPT] * 6, "another")
    config = config_of(tiny, keep_kinds=[], **FLOOR)
    assert remaining_share(collection, config_of(tiny, keep_kinds=[]), ["00000"]) == pytest.approx(2 / 6)
    assert remaining_share(collection, config, ["00000"]) == 1
    asked.clear()
    caption(collection, config)
    assert asked == [2]
    assert all(row["similarity"] is not None for row in captions(collection))
    assert remaining_share(collection, config, ["00000"]) == 0


def test_what_no_model_was_asked_for_makes_nothing_again(
    tiny: str, make_collection: Make, config_of: MakeConfig
) -> None:
    collection = make_collection(count=2)
    before = recipes(collection, config_of(tiny))
    changes: list[dict[str, Any]] = [{"clip": CLIP}, {"seed": 3}]
    for change in changes:
        assert recipes(collection, config_of(tiny, **change)) == before


def test_a_part_of_an_older_version_is_made_again(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int]
) -> None:
    import pyarrow.parquet as pq

    collection = make_collection(count=4)
    caption(collection, config_of(tiny))
    path = collection.part_path(Table.CAPTIONS, "00000")
    old = pq.read_table(path)
    metadata = {**old.schema.metadata, b"dreamloom.recipe": b"old"}
    pq.write_table(old.select(["key", "caption", "kind", "model", "score"]).replace_schema_metadata(metadata), path)
    asked.clear()
    caption(collection, config_of(tiny))
    assert asked == [2]


def test_edits_are_made_without_a_model_and_what_was_before_is_kept(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int]
) -> None:
    collection = make_collection()
    caption(collection, config_of(tiny))
    before = captions(collection)
    assert all(row["caption"] == row["unedited"] for row in before)
    asked.clear()
    edits = EditConfig(replace={"red car": "zorp"}, suffix=", a photo of {source}", prefix="look:")
    caption(collection, config_of(tiny, edit=edits))
    rows = captions(collection)
    assert asked == []
    assert [row["unedited"] for row in rows] == [row["caption"] for row in before]
    assert [row["caption"] for row in rows] == [edit(row["caption"], edits, "work") for row in before]
    assert "look: a zorp, a photo of {source}" in {row["caption"] for row in rows}
    caption(collection, config_of(tiny))
    assert captions(collection) == before


def test_captions_are_edited_as_the_stage_would_and_the_model_may_be_gone(
    tiny: str, make_collection: Make, config_of: MakeConfig, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    config, rules = config_of(str(model)), EditConfig(replace={"red car": "zorp"}, suffix="x")
    collection, anew = make_collection(part_rows=4), make_collection("anew", part_rows=4)
    caption(collection, config)
    plain = collection.read(Table.CAPTIONS)
    promised = preview_edits(collection, rules)
    assert edit_captions(collection, rules) == [EditConfig()]
    caption(anew, config.model_copy(update={"edit": rules}))
    assert collection.read(Table.CAPTIONS).equals(anew.read(Table.CAPTIONS))
    assert [(row["key"], row["caption"]) for row in captions(collection)] == [(e.image, e.after) for e in promised]
    assert caption(collection, config.model_copy(update={"edit": rules})).parts_done == 0
    shutil.rmtree(model)
    assert edit_captions(collection, EditConfig(prefix="y")) == [rules]
    assert edit_captions(collection, EditConfig()) == [EditConfig(prefix="y")]
    assert collection.read(Table.CAPTIONS).equals(plain)


def test_editing_makes_no_new_captions(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int]
) -> None:
    collection = make_collection(count=4)
    caption(collection, config_of(tiny))
    make_collection(count=8)  # more images came in
    asked.clear()
    edit_captions(collection, EditConfig(prefix="y"))
    assert (asked, len(captions(collection))) == ([], 4)
    edited = config_of(tiny, edit={"prefix": "y"})
    assert caption(collection, edited).parts_done == 1
    assert (asked, len(captions(collection))) == ([2], 8)


@pytest.mark.slow
def test_what_was_found_before_a_kill_is_not_asked_again(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int], crash: Any
) -> None:
    collection = make_collection(count=12)
    config = config_of(tiny, keep_kinds=[], batch_size=1, num_workers=1)
    script = (
        "from pathlib import Path\n"
        "from dreamloom.caption.config import CaptionConfig; from dreamloom.caption.stage import caption\n"
        "from dreamloom.scrape.collection import Collection\n"
        f"config = CaptionConfig.model_validate_json({config.model_dump_json()!r})\n"
        f"caption(Collection(Path({str(collection.root)!r})), config)"
    )
    crash.root = collection.root / "images"
    assert crash.run(script, at=9)  # when the ninth of twelve images is opened
    assert not collection.parts(Table.CAPTIONS)
    assert caption(collection, config).kept == 12
    assert 0 < len(asked) < 12
    assert [path.name for path in (collection.root / Table.CAPTIONS).iterdir()] == ["00000.parquet"]
    anew = make_collection("anew", count=12)
    caption(anew, config)
    assert collection.read(Table.CAPTIONS).equals(anew.read(Table.CAPTIONS))


def test_the_model_sees_images_upright(
    tiny: str, make_collection: Make, config_of: MakeConfig, tmp_path: Path, draw_image: Any
) -> None:
    folder = tmp_path / "turned" / "pictures"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 3  # shown upside down
    draw_image(0).save(folder / "1.png")
    draw_image(0).rotate(180).save(folder / "2.png", exif=exif)
    draw_image(0).rotate(180).save(folder / "3.png")
    collection = make_collection("turned", count=0)
    caption(collection, config_of(tiny))
    upright, marked, turned = (row["caption"] for row in captions(collection))
    assert upright == marked != turned


def test_a_decided_caption_is_not_edited_and_asks_no_model(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int]
) -> None:
    collection, config = make_collection(), config_of(tiny, edit=EditConfig(prefix="photo of"))
    caption(collection, config)
    before = captions(collection)
    asked.clear()
    written = next(row for row in before if row["kind"] == CaptionKind.MODEL)
    collection.add_decisions([Decision(written["key"], "1", What.CAPTION, "a_dog")])
    assert remaining_share(collection, config, ["00000"]) == 0
    assert caption(collection, config).parts_done == 1
    row = next(row for row in captions(collection) if row["key"] == written["key"])
    assert (row["caption"], row["kind"], row["model"], row["score"]) == ("a_dog", CaptionKind.HUMAN, None, None)
    edit_captions(collection, EditConfig(suffix="!"))
    assert row in captions(collection)
    collection.add_decisions([Decision(written["key"], "2", What.CAPTION, "a_dog", undo=True)])
    caption(collection, config)
    assert (captions(collection), asked) == (before, [])


def test_an_image_is_described_once_whatever_its_name_and_source(
    tiny: str, make_collection: Make, config_of: MakeConfig, asked: list[int], tmp_path: Path
) -> None:
    collection, config = make_collection(), config_of(tiny)
    caption(collection, config)
    asked.clear()
    before = sorted(row["caption"] for row in captions(collection))
    renamed = tmp_path / "renamed"
    shutil.copytree(tmp_path / "here" / "pictures", renamed)
    for file in renamed.glob("[0-9]*"):
        file.rename(renamed / f"IMG-{file.name}")
    other = Collection(tmp_path / "here" / "other")
    ingest_folder(other, FolderConfig(path=renamed), read_caption)
    caption(other, config)
    assert (sorted(row["caption"] for row in captions(other)), asked) == (before, [])
    assert {row["key"] for row in captions(other)}.isdisjoint(row["key"] for row in captions(collection))
