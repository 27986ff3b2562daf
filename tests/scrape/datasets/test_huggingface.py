"""Hugging Face datasets: parquet with images in it, in any spelling and layout, and folders with a table beside."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import DocumentError
from dreamloom.base.tables.tables import read_table
from dreamloom.scrape.collection import CaptionKind, Collection, Status, Table
from dreamloom.scrape.datasets.huggingface import HuggingfaceConfig, ingest_huggingface, measure, recipes

Row = dict[str, Any]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encode_image(number: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def parquet(path: Path, numbers: range, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": encode_image(n), "path": f"{n}.png"} for n in numbers], IMAGE)
    columns = {"image": images, "text": [f"a car {n}" for n in numbers], **more}
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


def rows_of(collection: Collection, path: Path, **config: Any) -> list[Row]:
    ingest_huggingface(collection, HuggingfaceConfig(path=path, **config))
    return list(collection.read(Table.RECORDS).to_pylist())


# Parquet


def test_images_come_out_of_parquet_as_they_are(tmp_path: Path, collection: Collection) -> None:
    for file, numbers in (("0000.parquet", range(7)), ("0001.parquet", range(7, 12))):
        parquet(tmp_path / "cars" / "default" / "train" / file, numbers)
    rows = rows_of(collection, tmp_path / "cars", part_rows=5)
    assert collection.parts(Table.RECORDS) == ["00000", "00001", "00002"]
    assert [row["text"] for row in rows] == [f"a car {n}" for n in range(12)]
    assert [(collection.root / row["image"]).read_bytes() for row in rows] == [encode_image(n) for n in range(12)]
    assert {row["text_kind"] for row in rows} == {CaptionKind.HUMAN}
    assert rows[8]["path"] == str(tmp_path / "cars" / "default" / "train" / "0001.parquet#1")
    assert len({row["key"] for row in rows}) == 12
    other = rows_of(Collection(tmp_path / "whole"), tmp_path / "cars")
    assert [row["key"] for row in other] == [row["key"] for row in rows]


@pytest.mark.parametrize("limit", [1, 6, 7, 8, 40])
def test_a_limit_is_exact_over_files(tmp_path: Path, collection: Collection, limit: int) -> None:
    for file in range(3):
        parquet(tmp_path / "cars" / f"train-{file}.parquet", range(4 * file, 4 * file + 4))
    rows = rows_of(collection, tmp_path / "cars", part_rows=3, limit=limit)
    assert [row["text"] for row in rows] == [f"a car {n}" for n in range(min(limit, 12))]


def test_a_split_is_known_by_file_or_folder(tmp_path: Path) -> None:
    cars = tmp_path / ".cache" / "cars"
    parquet(cars / "data" / "train-00000-of-00001-abc.parquet", range(2))
    parquet(cars / "data" / "test-00000-of-00001.parquet", range(2, 3))
    parquet(cars / "validation" / "0.parquet", range(3, 4))
    parquet(cars / ".cache" / "train.parquet", range(9, 10))
    for split, count in (("train", 2), ("test", 1), ("validation", 1), (None, 4)):
        assert len(rows_of(Collection(tmp_path / str(split)), cars, split=split)) == count
    assert len(rows_of(Collection(tmp_path / "alias"), cars, split="dev")) == 1
    with pytest.raises(UserError, match="no file of the split extra; it has test, train and validation"):
        recipes(Collection(tmp_path / "c"), HuggingfaceConfig(path=cars, split="extra"))


def test_columns_of_other_names(tmp_path: Path) -> None:
    more = {"Caption": [["", "one"], ["two"]], "prompt": ["x", "y"], "license": ["mit", None], "url": ["http://x", ""]}
    path = parquet(tmp_path / "a.parquet", range(2), **more)
    table = pq.read_table(path).drop(["text"])
    pq.write_table(table, path)
    rows = rows_of(Collection(tmp_path / "1"), path)
    assert [(r["text"], r["licence"], r["url"]) for r in rows] == [("one", "mit", "http://x"), ("two", None, None)]
    assert [row["text"] for row in rows_of(Collection(tmp_path / "2"), path, caption_column="prompt")] == ["x", "y"]
    bare = table.select(["prompt"]).append_column("jpg", pa.array([encode_image(0, "JPEG"), None], pa.binary()))
    pq.write_table(bare.append_column("mask", pa.array([b"m", b"m"])), path)
    rows = rows_of(Collection(tmp_path / "3"), path, caption_kind="model")
    assert [(row["status"], row["text"], row["text_kind"]) for row in rows] == [
        (Status.OK, "x", CaptionKind.MODEL),
        (Status.MISSING_FILE, "y", CaptionKind.MODEL),
    ]


def test_rows_that_img2dataset_did_not_get_say_why(tmp_path: Path, collection: Collection) -> None:
    status = {"status": ["success", "failed_to_download"], "error_message": [None, "HTTP Error 404: Not Found"]}
    table = pa.table({"jpg": pa.array([encode_image(0, "JPEG"), None], pa.binary()), "caption": ["a", "b"], **status})
    pq.write_table(table, tmp_path / "00000.parquet")
    rows = rows_of(collection, tmp_path / "00000.parquet")
    assert [(row["status"], row["detail"]) for row in rows] == [
        (Status.OK, None),
        (Status.HTTP_404, "HTTP Error 404: Not Found"),
    ]


def test_a_path_in_a_row_is_not_followed(tmp_path: Path, collection: Collection) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encode_image(1))
    pq.write_table(pa.table({"image": pa.array([{"bytes": None, "path": str(secret)}], IMAGE)}), tmp_path / "a.parquet")
    (row,) = rows_of(collection, tmp_path / "a.parquet")
    assert (row["status"], row["image"]) == (Status.MISSING_FILE, None)


def test_a_file_that_changed_makes_its_parts_again(tmp_path: Path, collection: Collection) -> None:
    for file in range(3):
        parquet(tmp_path / "cars" / f"{file}.parquet", range(4))
    config = HuggingfaceConfig(path=tmp_path / "cars", part_rows=4)
    assert ingest_huggingface(collection, config).parts_done == 3
    parquet(tmp_path / "cars" / "1.parquet", range(4, 8))
    assert ingest_huggingface(collection, config).parts_done == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_column": "photo"}, "no column of images named photo"),
        ({"caption_column": "words"}, "no column words; it has image, text"),
    ],
)
def test_columns_that_are_not_there_are_said(tmp_path: Path, collection: Collection, config: Row, message: str) -> None:
    path = parquet(tmp_path / "a.parquet", range(2))
    with pytest.raises(UserError, match=message):
        rows_of(collection, path, **config)
    assert collection.parts(Table.RECORDS) == []


def test_several_columns_of_images_have_to_be_told_apart(tmp_path: Path, collection: Collection) -> None:
    pq.write_table(pa.table({"left": [encode_image(0)], "right": [encode_image(1)]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="several columns of images"):
        rows_of(collection, tmp_path / "a.parquet")
    (row,) = rows_of(collection, tmp_path / "a.parquet", image_column="right")
    assert (collection.root / row["image"]).read_bytes() == encode_image(1)


def test_what_is_no_dataset_is_refused(tmp_path: Path, collection: Collection) -> None:
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1")
    for path, message in [("nowhere", "does not exist"), ("a.parquet", "can't be read as parquet")]:
        with pytest.raises(UserError, match=message):
            rows_of(collection, tmp_path / path)


CAPTION_CELLS = [
    (pa.array([float("nan"), 1.5]), [None, None]),
    (pa.array([7, None]), [None, None]),
    (pa.array([["", " a ", "b"], []]), ["a", None]),
    (pa.array([" ", "b"]), ["", "b"]),
    (pa.array([b"\xff\xfe", b"b"], pa.binary()).view(pa.string()), [None, "b"]),
]


@pytest.mark.parametrize(("cells", "texts"), CAPTION_CELLS)
def test_a_caption_that_nobody_wrote_is_none(
    tmp_path: Path, collection: Collection, cells: pa.Array, texts: list[str | None]
) -> None:
    rows = rows_of(collection, parquet(tmp_path / "a.parquet", range(2), text=cells))
    assert [row["text"] for row in rows] == texts
    assert [row["text_kind"] == CaptionKind.NONE for row in rows] == [not text for text in texts]
    assert {row["status"] for row in rows} == {Status.OK}


def test_of_a_column_with_fields_one_is_named(tmp_path: Path, collection: Collection) -> None:
    path = parquet(tmp_path / "a.parquet", range(2), text=[{"en": "a", "de": "b"}, {"en": None, "de": "c"}])
    with pytest.raises(UserError, match=r"the column text holds the fields en, de; name one of them, such as text\.en"):
        rows_of(collection, path)
    assert [row["text"] for row in rows_of(collection, path, caption_column="text.de")] == ["b", "c"]
    assert [row["text"] for row in rows_of(collection, path, caption_column="text.en")] == ["a", None]


def test_a_null_in_one_column_does_not_hide_another(tmp_path: Path, collection: Collection) -> None:
    path = parquet(tmp_path / "a.parquet", range(2), text=pa.array([None, "a"]), caption=["b", "c"])
    assert [row["text"] for row in rows_of(collection, path)] == ["b", "a"]


# A folder with a table


def test_a_row_that_cannot_be_read_costs_itself(
    tmp_path: Path, collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    folder = imagefolder(tmp_path / "cars", "a.png", "b.png")
    (folder / "metadata.csv").write_text(' file_name , text\na.png,one, two\nb.png,"three, café"\n', "utf-16")
    assert [row["text"] for row in rows_of(collection, folder)] == [None, "three, café"]
    assert "1 rows are left out; the first, row 2: can't be read (unquoted_comma)" in caplog.text


def imagefolder(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_image(number))
    return folder


def test_an_imagefolder_s_table_says_the_captions(tmp_path: Path, collection: Collection) -> None:
    folder = imagefolder(tmp_path / "cars", "train/a.png", "train/b/c.png", "train/d.png")
    lines = [{"file_name": "b/c.png", "text": "a bus", "license": "mit"}, {"file_name": "gone.png", "text": "x"}]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    rows = {Path(row["path"]).name: row for row in rows_of(collection, folder)}
    assert {name: (row["status"], row["text"], row["licence"]) for name, row in rows.items()} == {
        "a.png": (Status.OK, None, None),
        "c.png": (Status.OK, "a bus", "mit"),
        "d.png": (Status.OK, None, None),
        "gone.png": (Status.MISSING_FILE, "x", None),
    }
    assert (collection.root / rows["a.png"]["image"]).read_bytes() == (folder / "train" / "a.png").read_bytes()


def test_a_table_may_be_csv_or_parquet(tmp_path: Path) -> None:
    texts = {}
    for kind in ("csv", "parquet"):
        folder = imagefolder(tmp_path / kind, "a.png", "b.png")
        if kind == "csv":
            (folder / "metadata.csv").write_text('\ufefffile_name,prompt\na.png,"one, two"\nb.png,three\n', "utf-8")
        else:
            table = pa.table({"file_name": ["a.png", "b.png"], "prompt": ["one, two", "three"]})
            pq.write_table(table, folder / "metadata.parquet")
        texts[kind] = [row["text"] for row in rows_of(Collection(tmp_path / f"c-{kind}"), folder)]
    assert texts["csv"] == texts["parquet"] == ["one, two", "three"]


def test_a_caption_that_changed_makes_its_part_alone_again(tmp_path: Path, collection: Collection) -> None:
    folder = imagefolder(tmp_path / "cars", *(f"{n}.png" for n in range(6)))
    config = HuggingfaceConfig(path=folder, part_rows=2)
    (folder / "metadata.csv").write_text("file_name,text\n3.png,a bus\n")
    assert ingest_huggingface(collection, config).parts_done == 3
    (folder / "metadata.csv").write_text("file_name,text\n3.png,a red bus\n")
    assert ingest_huggingface(collection, config).parts_done == 1


def test_a_split_and_a_limit_of_a_folder(tmp_path: Path, collection: Collection) -> None:
    folder = imagefolder(tmp_path / "cars", "train/cat/1.png", "train/dog/2.png", "test/cat/3.png")
    names = [Path(row["path"]).name for row in rows_of(collection, folder, split="train", limit=1)]
    assert names == ["1.png"]
    with pytest.raises(UserError, match="no image of the split dev"):
        rows_of(collection, folder, split="dev")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a bus"}', "row 1: has no file_name"),
        ('{"file_name": "../../x.png"}', "leads out of the folder"),
        ("[1]", r"row 1: can't be read \(not_an_object\)"),
        ("\n{", r"row 2: can't be read \(not_json\)"),
    ],
)
def test_a_broken_table_is_said(tmp_path: Path, collection: Collection, line: str, message: str) -> None:
    folder = imagefolder(tmp_path / "cars", "a.png")
    (folder / "metadata.jsonl").write_text(line)
    with pytest.raises(UserError, match=message):
        rows_of(collection, folder)


def test_a_table_may_spell_names_otherwise_than_the_files(tmp_path: Path, collection: Collection) -> None:
    """As macOS and Windows do: é decomposed, and back slashes; or the file's name is in Latin-1."""
    folder = tmp_path / "mine"
    for name in ("train/cafe\u0301.png", "train/0.png", "back\\slash.png", os.fsdecode(b"na\xefve.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_image(len(name)))
    rows = [
        ("train/caf\u00e9.png", "a café"),
        ("train\\0.png", "a car"),
        ("back\\slash.png", "a back"),
        ("na\u00efve.png", "naive"),
    ]
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in [*rows, ("..\\..\\secret.png", "out")]]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    records = rows_of(collection, folder)
    assert {row["status"] for row in records} == {"ok"}
    assert sorted(row["text"] for row in records) == ["a back", "a café", "a car", "naive"]


def test_a_table_may_escape_names_and_repeat_its_own_folder(tmp_path: Path, collection: Collection) -> None:
    folder = imagefolder(tmp_path / "mine", "one two.png", "mine/3.png", "images/4.png", "5.png", "a%20b.png")
    names = ["one%20two.png", "mine/5.png", "mine/3.png", "images/5.png", "a%20b.png"]
    lines = [json.dumps({"file_name": name, "text": name}) for name in names]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    (folder / "images" / "metadata.jsonl").write_text('{"file_name": "images/4.png", "text": "inside"}')
    found = {Path(row["path"]).relative_to(folder).as_posix(): row["text"] for row in rows_of(collection, folder)}
    assert found == {
        "5.png": "mine/5.png",
        "a%20b.png": "a%20b.png",
        "images/4.png": "inside",
        "images/5.png": "images/5.png",  # which is not there
        "mine/3.png": "mine/3.png",
        "one two.png": "one%20two.png",
    }


def test_a_table_of_windows_disregards_case_where_that_is_no_choice(tmp_path: Path, collection: Collection) -> None:
    folder = imagefolder(tmp_path / "mine", "Photo.PNG", "two.png", "TWO.png")
    lines = [json.dumps({"file_name": name, "text": name}) for name in ("photo.png", "two.png", "Two.png")]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    found = {Path(row["path"]).name: (row["status"], row["text"]) for row in rows_of(collection, folder)}
    assert found["Photo.PNG"] == ("ok", "photo.png") and found["two.png"] == ("ok", "two.png")
    assert (found["TWO.png"], found["Two.png"][0]) == (("ok", None), "missing_file")


def test_of_several_rows_of_an_image_the_first_caption_counts(tmp_path: Path, collection: Collection) -> None:
    folder = imagefolder(tmp_path / "mine", "a.png")
    (folder / "metadata.csv").write_text("file_name,text\na.png,\na.png,one\na.png,two\n")
    assert [row["text"] for row in rows_of(collection, folder)] == ["one"]


def test_captions_that_may_be_there_and_are_not_read_are_told(
    tmp_path: Path, collection: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    file = parquet(tmp_path / "a.parquet", range(1), sentences=[[{"raw": "a cat"}]], number=[1])
    pq.write_table(pq.read_table(file).drop(["text"]), file)
    rows_of(collection, file)
    assert "it has sentences. Name one as caption_column" in caplog.text
    folder = imagefolder(tmp_path / "mine", "a.png")
    (folder / "captions.tsv").write_text("file_name\ttext\na.png\tone\n")
    rows_of(Collection(tmp_path / "two"), folder)
    assert "There is captions.tsv" in caplog.text
    caplog.clear()
    rows_of(Collection(tmp_path / "three"), folder, caption_kind="none")
    (folder / "metadata.csv").write_text("file_name,text\na.png,one\n")
    rows_of(Collection(tmp_path / "four"), folder)
    assert not caplog.text


@pytest.mark.parametrize("as_stream", [True, False])
def test_what_save_to_disk_writes_is_read(tmp_path: Path, collection: Collection, as_stream: bool) -> None:
    """A DatasetDict: a folder for each split, with Arrow files and JSON."""
    for split, numbers in (("train", range(5)), ("test", range(5, 6))):
        folder = tmp_path / "saved" / split
        table = pq.read_table(parquet(tmp_path / f"{split}.parquet", numbers))
        folder.mkdir(parents=True)
        (folder / "state.json").write_text("{}")
        new = pa.ipc.new_stream if as_stream else pa.ipc.new_file
        for name in ("data-00000-of-00001.arrow", "cache-1234.arrow"):
            with new(str(folder / name), table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
    rows = rows_of(collection, tmp_path / "saved", split="train", part_rows=3)
    assert [row["status"] for row in rows] == ["ok"] * 5
    stored = [(collection.root / row["image"]).read_bytes() for row in rows]
    assert stored == [encode_image(number) for number in range(5)]
    assert measure(HuggingfaceConfig(path=tmp_path / "saved", split="test")).count == 1


def test_an_arrow_file_that_is_none_is_told(tmp_path: Path, collection: Collection) -> None:
    (tmp_path / "a.arrow").write_bytes(b"no arrow")
    with pytest.raises(UserError, match="can't be read as arrow"):
        rows_of(collection, tmp_path / "a.arrow")


def test_what_only_looks_like_a_file_is_no_source(tmp_path: Path, collection: Collection) -> None:
    """Reading a pipe never ends, and a folder of Spark's may be called a.parquet."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "0.png").write_bytes(encode_image(0))
    os.mkfifo(folder / "metadata.jsonl")
    os.mkfifo(folder / "train.parquet")
    (folder / "test.parquet").mkdir()
    assert [row["status"] for row in rows_of(collection, folder)] == ["ok"]


def test_names_that_no_file_can_have_cost_their_rows(tmp_path: Path, collection: Collection) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "0.png").write_bytes(encode_image(0))
    names = ["0.png", "\ud800.png", "x" * 5000]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps({"file_name": name, "text": "a"}) for name in names))
    assert sorted(row["status"] for row in rows_of(collection, folder)) == ["missing_file", "missing_file", "ok"]


def test_a_cell_of_an_image_that_holds_text_costs_its_row(tmp_path: Path, collection: Collection) -> None:
    images = pa.array([{"bytes": "text", "path": "0.png"}])
    pq.write_table(pa.table({"image": images, "text": ["a"]}), tmp_path / "t.parquet")
    (row,) = rows_of(collection, tmp_path / "t.parquet", image_column="image")
    assert (row["status"], row["detail"]) == ("missing_file", "the row holds no bytes")


def test_damage_within_a_parquet_file_costs_its_rows(tmp_path: Path, collection: Collection) -> None:
    path = parquet(tmp_path / "t.parquet", range(9))
    data, group = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(1)
    start = min(
        group.column(place).dictionary_page_offset or group.column(place).data_page_offset for place in range(3)
    )
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    rows = rows_of(collection, path)
    assert [row["status"] for row in rows] == ["ok"] * 3 + ["truncated"] * 3 + ["ok"] * 3
    assert rows[4]["detail"] == "the file is damaged here"


def test_what_an_arrow_file_points_to_outside_of_itself_is_null(tmp_path: Path, collection: Collection) -> None:
    """Reading it ends the process."""
    table = pa.table({"image": pa.array([encode_image(n) for n in range(3)]), "text": ["abcd", "efgh", "ijkl"]})
    with pa.ipc.new_stream(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    data = (tmp_path / "t.arrow").read_bytes().replace(b"abcdefgh", b"ab\xffdefgh")
    assert [row["text"] for row in rows_of(collection, write(tmp_path / "text.arrow", data))] == [None, "efgh", "ijkl"]
    offsets, damaged = (np.array(each, dtype="<i4").tobytes() for each in ([0, 4, 8, 12], [0, 4, 2**30, 12]))
    damage = write(tmp_path / "offsets.arrow", data.replace(offsets, damaged))
    rows = rows_of(Collection(tmp_path / "damaged"), damage)
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert [row["text"] for row in rows] == [None] * 3


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_captions_in_maps_and_in_lists_of_fields_are_named(tmp_path: Path, collection: Collection) -> None:
    captions = [[{"raw": "a cat", "id": 1}, {"raw": "cats", "id": 2}]] * 2
    maps = pa.array([[("en", "a car"), ("de", "ein Auto")]] * 2, pa.map_(pa.string(), pa.string()))
    path = parquet(tmp_path / "t.parquet", range(2), captions=captions, text=maps)
    for column, texts in (("captions.raw", "a cat"), ("text.de", "ein Auto")):
        own = Collection(tmp_path / column)
        assert [row["text"] for row in rows_of(own, path, caption_column=column)] == [texts] * 2
    for column, sentence in (("captions", "fields raw, id; .* such as captions.raw"), ("text", "fields en, de")):
        with pytest.raises(UserError, match=sentence):
            rows_of(collection, path, caption_column=column)


def test_columns_of_one_name_and_names_that_are_not_utf8_are_told(tmp_path: Path, collection: Collection) -> None:
    columns = [pa.array([encode_image(0)]), pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["image", "text", "text"]), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="names the column text twice"):
        rows_of(collection, tmp_path / "t.parquet")
    folder = tmp_path / "mine"
    folder.mkdir()
    (tmp_path / "t.parquet").rename(folder / os.fsdecode(b"\xff.parquet"))
    with pytest.raises(UserError, match="a name that is not UTF-8"):
        rows_of(collection, folder)


def test_a_column_whose_name_is_not_utf8_is_told(tmp_path: Path, collection: Collection) -> None:
    data = parquet(tmp_path / "t.parquet", range(1)).read_bytes().replace(b"text", b"\x80ext")
    with pytest.raises(UserError, match="can't be read as parquet"):
        rows_of(collection, write(tmp_path / "t.parquet", data))
    with pytest.raises(DocumentError):
        list(read_table(tmp_path / "t.parquet"))


def test_rows_that_cost_no_byte_are_no_dataset(tmp_path: Path, collection: Collection) -> None:
    pq.write_table(pa.table({"image": pa.nulls(3_000_000, pa.binary())}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="claims 3,000,000 rows in"):
        rows_of(collection, tmp_path / "t.parquet")


def test_a_table_and_its_column_may_be_in_capitals(tmp_path: Path, collection: Collection) -> None:
    folder = imagefolder(tmp_path / "mine", "0.png")
    (folder / "Metadata.CSV").write_text("File_Name,Text\n0.png,a car\n")
    assert [row["text"] for row in rows_of(collection, folder)] == ["a car"]
