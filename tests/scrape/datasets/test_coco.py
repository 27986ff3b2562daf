"""COCO's captions and photos: one caption a photo, its licence, and photos that do not exist."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.scrape.collection import CaptionKind, Collection, Status, Table, key_of
from dreamloom.scrape.datasets.coco import CocoConfig, ingest_coco, recipes
from dreamloom.scrape.web.scrape import scrape


def rows_of(collection: Collection) -> dict[int, dict[str, Any]]:
    return {int(Path(row["path"]).stem): row for row in collection.read(Table.RECORDS).to_pylist()}


def document(*photos: int, captions: tuple[str, ...] = (" A  dog\n", "a much longer caption .", "x")) -> dict[str, Any]:
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "license": 4, "coco_url": f"http://coco/{i}"} for i in photos]
    annotations = [
        {"id": i * 10 + turn, "image_id": i, "caption": text} for i in photos for turn, text in enumerate(captions)
    ]
    licences = [{"id": 4, "name": "Attribution License", "url": "http://by"}]
    return {"info": {}, "licenses": licences, "images": images, "annotations": annotations[::-1]}


def coco(folder: Path, content: Any, *photos: int) -> CocoConfig:
    (folder / "val").mkdir(parents=True, exist_ok=True)
    for photo in photos:
        Image.new("RGB", (8, 6)).save(folder / "val" / f"{photo:012d}.jpg")
    (folder / "captions.json").write_text(json.dumps(content))
    return CocoConfig(annotations=folder / "captions.json", images=folder / "val")


def test_a_photo_comes_in_with_its_caption_licence_and_address(tmp_path: Path) -> None:
    collection = Collection(tmp_path / "scenes")
    summary = ingest_coco(collection, coco(tmp_path, document(9, 7), 7))
    rows = rows_of(collection)
    assert list(rows) == [7, 9]
    assert (rows[7]["text"], rows[7]["text_kind"], rows[7]["author"]) == ("A dog", CaptionKind.HUMAN, None)
    assert (rows[7]["licence"], rows[7]["licence_url"]) == ("Attribution License", "http://by")
    assert (rows[7]["url"], rows[7]["key"]) == ("http://coco/7", key_of("coco", "7"))
    assert rows[9]["status"] == Status.MISSING_FILE
    assert (summary.rows, summary.kept, summary.dropped) == (2, 1, {"missing_file": 1})


def test_blank_captions_are_passed_over_and_sizes_that_cannot_be_are_none(tmp_path: Path) -> None:
    content = document(7, captions=(" ", "", "a dog"))
    content["annotations"].append({"id": 1, "image_id": 7, "caption": None})
    content["images"][0] |= {"width": 10**14, "height": -3}
    collection = Collection(tmp_path / "scenes")
    ingest_coco(collection, coco(tmp_path, content).model_copy(update={"images": None}))
    (row,) = collection.read(Table.CANDIDATES).to_pylist()
    assert (row["text"], row["width"], row["height"]) == ("a dog", None, None)


def test_which_caption_is_taken(tmp_path: Path) -> None:
    config = coco(tmp_path, document(*range(40)), *range(40))
    texts = {}
    for which in ("first", "longest", "random"):
        collection = Collection(tmp_path / which)
        ingest_coco(collection, config.model_copy(update={"caption_choice": which}))
        texts[which] = [row["text"] for row in rows_of(collection).values()]
    assert set(texts["first"]) == {"A dog"}
    assert set(texts["longest"]) == {"a much longer caption."}
    assert set(texts["random"]) == {"A dog", "a much longer caption.", "x"}
    again = Collection(tmp_path / "again")
    ingest_coco(again, config.model_copy(update={"caption_choice": "random"}))
    assert [row["text"] for row in rows_of(again).values()] == texts["random"]


def test_a_seed_chooses_others_and_all_are_one_text(tmp_path: Path) -> None:
    config = coco(tmp_path, document(*range(40)), *range(40))

    def texts(**changed: Any) -> list[str]:
        collection = Collection(tmp_path / str(changed))
        ingest_coco(collection, config.model_copy(update=changed))
        return [row["text"] for row in rows_of(collection).values()]

    assert texts(caption_choice="random", seed=1) != texts(caption_choice="random", seed=2)
    assert set(texts(caption_choice="all")) == {"A dog. a much longer caption. x."}


def instances(folder: Path, shown: dict[int, list[int]]) -> Path:
    """Photo → the categories of what is in it: 1 is a person, 18 a dog, 3 a car."""
    names = [(1, "person", "person"), (18, "dog", "animal"), (3, "car", "vehicle")]
    document = {
        "categories": [{"id": number, "name": name, "supercategory": group} for number, name, group in names],
        "annotations": [
            {"id": 1, "image_id": photo, "category_id": number, "segmentation": [[1.5, 2.5]], "bbox": [0, 0, 1, 1]}
            for photo, numbers in shown.items()
            for number in numbers
        ],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    return folder / "instances.json"


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ({"categories": ["person"]}, [1, 3]),
        ({"categories": ["Dog", "car"]}, [2, 3]),
        ({"categories": ["animal"]}, [2, 3]),
        ({"exclude_categories": ["person"]}, [2, 4]),
        ({"categories": ["vehicle", "animal"], "exclude_categories": ["person"]}, [2]),
        ({"categories": ["person"], "limit": 1}, [1]),
    ],
)
def test_photos_are_chosen_by_what_they_show(tmp_path: Path, asked: dict[str, Any], taken: list[int]) -> None:
    config = coco(tmp_path, document(1, 2, 3, 4), 1, 2, 3, 4)
    config = config.model_copy(update={"instances": instances(tmp_path, {1: [1, 1], 2: [18], 3: [1, 18, 3]}), **asked})
    collection = Collection(tmp_path / "scenes")
    ingest_coco(collection, config)
    assert list(rows_of(collection)) == taken


def test_an_annotation_that_names_no_category_costs_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = coco(tmp_path, document(1, 2), 1, 2)
    path = instances(tmp_path, {1: [18]})
    content = json.loads(path.read_text())
    content["annotations"][0] |= {"image_id": "1", "category_id": 18.0}
    content["annotations"] += [None, {"image_id": 2}, {"image_id": [2], "category_id": 18}, {"a": 1, "b": 2}]
    path.write_text(json.dumps(content))
    ingest_coco(Collection(tmp_path / "scenes"), config.model_copy(update={"instances": path, "categories": ["dog"]}))
    assert list(rows_of(Collection(tmp_path / "scenes"))) == [1]
    assert "4 annotations name no photo and category" in caplog.text


def test_what_photos_show_is_recorded_where_it_is_known(tmp_path: Path) -> None:
    config = coco(tmp_path, document(1, 2, 3), 1, 2, 3)
    collection = Collection(tmp_path / "scenes")
    ingest_coco(collection, config)
    assert [row["labels"] for row in rows_of(collection).values()] == [None] * 3
    shown = instances(tmp_path, {1: [1, 18, 1], 3: [3]})
    ingest_coco(collection, config.model_copy(update={"instances": shown}))
    assert [row["labels"] for row in rows_of(collection).values()] == [["dog", "person"], [], ["car"]]


def test_photos_are_chosen_by_licence(tmp_path: Path) -> None:
    content = document(1, 2, 3)
    content["images"][1]["license"] = 3
    config = coco(tmp_path, content, 1, 2, 3)
    collection = Collection(tmp_path / "scenes")
    ingest_coco(collection, config.model_copy(update={"licences": [4, 5]}))
    assert list(rows_of(collection)) == [1, 3]
    with pytest.raises(UserError, match="of these categories and licences"):
        ingest_coco(collection, config.model_copy(update={"licences": [7]}))


def test_categories_that_are_not_there_are_said(tmp_path: Path) -> None:
    config = coco(tmp_path, document(1), 1)
    with pytest.raises(ValidationError, match="categories need instances"):
        CocoConfig(annotations=config.annotations, images=config.images, categories=["dog"])
    file = instances(tmp_path, {})
    collection = Collection(tmp_path / "scenes")
    with pytest.raises(UserError, match="no category unicorn; it has animal, car, dog, person, vehicle"):
        ingest_coco(collection, config.model_copy(update={"instances": file, "categories": ["unicorn"]}))
    with pytest.raises(UserError, match="not an instances file of COCO"):
        ingest_coco(collection, config.model_copy(update={"instances": config.annotations, "categories": ["dog"]}))


def test_real_photos_of_people(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "coco" / "annotations"
    instances_json = json.loads((folder / "instances_sample.json").read_text())
    (person,) = (each["id"] for each in instances_json["categories"] if each["name"] == "person")
    people = {each["image_id"] for each in instances_json["annotations"] if each["category_id"] == person}
    config = CocoConfig(
        annotations=folder / "captions_sample.json",
        images=folder.parent / "images",
        instances=folder / "instances_sample.json",
        exclude_categories=["person"],
    )
    collection = Collection(tmp_path / "scenes")
    ingest_coco(collection, config)
    captioned = {each["id"] for each in json.loads((folder / "captions_sample.json").read_text())["images"]}
    assert set(rows_of(collection)) == captioned - people
    assert captioned & people


def test_photos_that_are_not_there_are_downloaded_by_their_address(tmp_path: Path, site: Any) -> None:
    content = document(7, 9)
    for image in content["images"]:
        image["coco_url"] = site.put(f"/{image['id']}.jpg", site.image(image["id"]))
    shown = instances(tmp_path, {7: [18], 9: [18]})
    config = coco(tmp_path, content).model_copy(update={"images": None, "instances": shown})
    collection = Collection(tmp_path / "scenes")
    summary = ingest_coco(collection, config)
    assert (summary.kept, collection.parts(Table.RECORDS)) == (2, [])
    scrape(collection, site.config)
    rows = collection.read(Table.RECORDS).to_pylist()
    assert [(row["key"], row["status"]) for row in rows] == [(key_of("coco", i), Status.OK) for i in ("7", "9")]
    assert {(row["text"], row["text_kind"], row["licence"]) for row in rows} == {
        ("A dog", CaptionKind.HUMAN, "Attribution License")
    }
    assert {row["licence_url"] for row in rows} == {"http://by"}
    assert [row["labels"] for row in rows] == [["dog"], ["dog"]]
    assert ingest_coco(collection, config).parts_done == 0


def test_a_limit_counts_photos_that_are_there(tmp_path: Path) -> None:
    collection = Collection(tmp_path / "scenes")
    config = coco(tmp_path, document(1, 2, 3, 4, 5), 2, 4, 5).model_copy(update={"limit": 2})
    summary = ingest_coco(collection, config)
    assert list(rows_of(collection)) == [1, 2, 3, 4]
    assert (summary.kept, summary.dropped) == (2, {"missing_file": 2})


def test_a_photo_that_nobody_described_has_no_caption(tmp_path: Path) -> None:
    collection = Collection(tmp_path / "scenes")
    ingest_coco(collection, coco(tmp_path, document(3, captions=()), 3))
    assert (rows_of(collection)[3]["text"], rows_of(collection)[3]["text_kind"]) == (None, CaptionKind.NONE)


def test_real_photos(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "coco"
    config = CocoConfig(annotations=folder / "annotations" / "captions_sample.json", images=folder / "images")
    collection = Collection(tmp_path / "scenes")
    summary = ingest_coco(collection, config)
    assert (summary.rows, summary.kept) == (24, 24)
    row = rows_of(collection)[159269]
    assert row["text"] == "some outdoor tables sitting next to some umbrellas"
    assert (row["width"], row["height"], row["licence"]) == (427, 640, "Attribution-ShareAlike License")
    stored = [row for row in rows_of(collection).values() if row["bytes"] == Path(row["path"]).stat().st_size]
    assert len(stored) == 20  # the others have an Adobe RGB profile
    assert ingest_coco(collection, config).parts_done == 0


def test_a_photo_that_arrives_makes_its_part_again(tmp_path: Path) -> None:
    collection = Collection(tmp_path / "scenes")
    config = coco(tmp_path, document(1, 2), 1)
    ingest_coco(collection, config)
    coco(tmp_path, document(1, 2), 1, 2)
    assert ingest_coco(collection, config).kept == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "not a captions file of COCO"),
        ({"images": []}, "it lacks 'annotations'"),
        (
            {**document(1), "annotations": [{"id": 1, "image_id": 1, "bbox": []}]},
            "number 0 of annotations has no caption",
        ),
        ({**document(1), "images": [{"id": 1, "file_name": "../../etc/passwd"}]}, "leads out of the folder"),
        (document(2), "holds none of the 1 photos"),
    ],
)
def test_what_is_no_coco_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    config = coco(tmp_path, content, 1)
    with pytest.raises(UserError, match=words):
        recipes(Collection(tmp_path / "scenes"), config)
    assert not (tmp_path / "scenes").exists()


def test_missing_files_are_refused(tmp_path: Path) -> None:
    config = coco(tmp_path, document(1), 1)
    for field, words in [("annotations", "can't be read"), ("images", "is not a folder")]:
        with pytest.raises(UserError, match=words):
            recipes(Collection(tmp_path / "scenes"), config.model_copy(update={field: tmp_path / "nowhere"}))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        recipes(Collection(tmp_path / "x"), config.model_copy(update={"annotations": tmp_path / "broken.json"}))


def test_a_bad_entry_costs_itself_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = document(1, 2)
    content["annotations"] += [
        {"id": 8, "caption": "of nothing"},
        None,
        {"id": "x", "image_id": 2, "caption": "by a text"},
    ]
    content["images"] += [{"id": 5}, "no image", {"id": "7", "file_name": ["a.jpg"]}]
    content["licenses"] = [{"name": "without id"}]
    config = coco(tmp_path, content, 1, 2)
    assert ingest_coco(Collection(tmp_path / "scenes"), config).kept == 2
    assert "6 entries are left out; the first, number " in caplog.text and "has no image_id" in caplog.text


def test_captions_of_other_types_and_ids_of_two_photos_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = document(1, 2, 3)
    texts = [["", "a cat"], {"en": "a dog"}, 3]
    content["annotations"] = [{"id": n, "image_id": n, "caption": text} for n, text in enumerate(texts, 1)]
    content["images"].append({**content["images"][1], "id": 1})
    collection = Collection(tmp_path / "scenes")
    ingest_coco(collection, coco(tmp_path, content, 1, 2, 3))
    assert collection.read(Table.RECORDS)["text"].to_pylist() == ["a cat", None, None]
    assert "3 entries are left out" in caplog.text


def test_a_photo_without_address_is_no_candidate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = document(1, 2)
    for image, url in zip(content["images"], ("", "http://x.org/2.jpg"), strict=True):
        image["coco_url"] = url
    config = coco(tmp_path, content).model_copy(update={"images": None})
    collection = Collection(tmp_path / "scenes")
    ingest_coco(collection, config)
    assert collection.read(Table.CANDIDATES)["url"].to_pylist() == ["http://x.org/2.jpg"]
    assert "no coco_url of 1 photos" in caplog.text


def test_blank_annotations_are_passed_over_and_counted(tmp_path: Path) -> None:
    content = document(1, 2)
    content["annotations"] = [{"id": 1, "image_id": 1, "caption": " "}, {"id": 2, "image_id": 1, "caption": "a dog"}]
    content["annotations"] += [{"id": 3, "image_id": 2, "caption": "\n"}]
    collection = Collection(tmp_path / "scenes")
    summary = ingest_coco(collection, coco(tmp_path, content, 1, 2))
    assert collection.read(Table.RECORDS)["text"].to_pylist() == ["a dog", ""]
    assert summary.marked == {"blank_caption": 1}


@pytest.mark.parametrize("name", ["a\0.jpg", "\ud800.jpg", "x" * 5000])
def test_a_name_that_no_file_can_have_is_a_missing_file(tmp_path: Path, name: str) -> None:
    content = document(1, 2)
    content["images"][0]["file_name"] = name
    assert ingest_coco(Collection(tmp_path / "scenes"), coco(tmp_path, content, 1, 2)).dropped == {"missing_file": 1}


def test_ids_are_numbers_however_they_are_written(tmp_path: Path) -> None:
    content = document(7, 8, 9, captions=("a dog",))
    for image, identity in zip(content["images"], (7.0, "8", "0009"), strict=True):
        image |= {"id": identity, "license": 4.0}
    for annotation in content["annotations"]:
        annotation["image_id"] = {7: "7", 8: 8.0, 9: 9}[annotation["image_id"]]
    collection = Collection(tmp_path / "scenes")
    ingest_coco(collection, coco(tmp_path, content, 7, 8, 9))
    rows = rows_of(collection)
    assert {number: row["text"] for number, row in rows.items()} == {7: "a dog", 8: "a dog", 9: "a dog"}
    assert {row["licence"] for row in rows.values()} == {"Attribution License"}
    assert [rows[number]["key"] for number in (7, 8, 9)] == [key_of("coco", each) for each in ("7", "8", "0009")]
