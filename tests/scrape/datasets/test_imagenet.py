"""ImageNet in the layouts in which people have it: a caption a synset, and mislabelled files as what they are."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.base.tables.synsets import known_synset_names
from dreamloom.base.text import indefinite_article
from dreamloom.demo.folders import make_imagenet
from dreamloom.demo.world import SHAPES
from dreamloom.scrape.collection import CaptionKind, Collection, Table
from dreamloom.scrape.datasets.imagenet import (
    LABELS,
    LICENCE,
    NAMES,
    ImagenetConfig,
    ingest_imagenet,
    recipes,
)

TENCH, OTTER, CRANE_BIRD, CRANE = "n01440764", "n02444819", "n02012849", "n03126707"


def draw(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (number, 0, 0)).save(path, "JPEG")


def captions(collection: Collection, path: Path, **config: Any) -> list[str]:
    ingest_imagenet(collection, ImagenetConfig(path=path, **config))
    return [str(row["text"]) for row in collection.read(Table.RECORDS).to_pylist()]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """train/n01440764/n01440764_1.JPEG …, as most unpack it."""
    for synset in (TENCH, OTTER, CRANE_BIRD, CRANE):
        for number in range(3):
            draw(tmp_path / "imagenet" / "train" / synset / f"{synset}_{number}.JPEG", number)
    return tmp_path / "imagenet"


def test_synsets_are_called_by_name(plain: Path, collection: Collection) -> None:
    assert captions(collection, plain, per_class=1) == [
        "a photo of a tench",
        "a photo of a crane bird",
        "a photo of an otter",
        "a photo of a construction crane",
    ]
    row = collection.read(Table.RECORDS).to_pylist()[0]
    assert (row["text_kind"], row["licence"], row["url"]) == (CaptionKind.TEMPLATE, LICENCE, None)
    assert row["labels"] == ["tench"]


def test_several_names_and_other_captions(plain: Path, tmp_path: Path) -> None:
    asked = {"classes": ["Tench"], "caption": "{name}"}
    assert captions(Collection(tmp_path / "all"), plain, name_choice="all", **asked) == ["tench, Tinca tinca"] * 3
    random = captions(Collection(tmp_path / "random"), plain, name_choice="random", **asked)
    assert set(random) == {"tench", "Tinca tinca"}
    assert captions(Collection(tmp_path / "again"), plain, name_choice="random", **asked) == random


def test_classes_are_asked_for_by_any_of_their_names_or_by_synset(plain: Path, tmp_path: Path) -> None:
    def taken(*classes: str) -> set[str]:
        collection = Collection(tmp_path / "-".join(classes))
        return set(captions(collection, plain, classes=list(classes), caption="{name}"))

    assert taken("crane") == {"crane bird", "construction crane"}
    assert taken("construction crane", TENCH) == {"construction crane", "tench"}
    with pytest.raises(UserError, match="No synset is called unicorn"):
        taken("unicorn")
    with pytest.raises(UserError, match="contains no image of goldfish; name other `classes`"):
        taken("goldfish")


def test_every_layout_gives_the_same_keys(plain: Path, tmp_path: Path) -> None:
    def keys(path: Path) -> list[str]:
        collection = Collection(tmp_path / f"c{len(list(tmp_path.iterdir()))}")
        ingest_imagenet(collection, ImagenetConfig(path=path))
        return [str(key) for key in collection.read(Table.RECORDS).column("key").to_pylist()]

    expected = keys(plain)
    kaggle = tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    kaggle.mkdir(parents=True)
    (plain / "train").rename(kaggle / "train")
    draw(kaggle / "test" / "ILSVRC2012_test_00000001.JPEG")  # nobody knows what it shows
    assert len(expected) == 12
    for path in (tmp_path / "kaggle", tmp_path / "kaggle" / "ILSVRC", kaggle, kaggle / "train"):
        assert keys(path) == expected


def test_flat_val_is_named_by_its_labels(tmp_path: Path, collection: Collection) -> None:
    val = tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val"
    for number in (1, 2, 3):
        draw(val / f"ILSVRC2012_val_0000000{number}.JPEG", number)
    with pytest.raises(UserError, match=LABELS):
        recipes(collection, ImagenetConfig(path=tmp_path, split="val"))
    lines = f"ILSVRC2012_val_00000002,{OTTER} 1 2 3 4 \nILSVRC2012_val_00000001,{TENCH} 85 1 9 9\n"
    (tmp_path / LABELS).write_text(f"ImageId,PredictionString\n{lines}", "utf-16")
    assert captions(collection, tmp_path, split="val") == ["a photo of a tench", "a photo of an otter", "None"]


def test_the_demo_s_synsets_have_their_names_beside_them(tmp_path: Path, collection: Collection) -> None:
    make_imagenet(tmp_path / "imagenet", each=2)
    summary = ingest_imagenet(collection, ImagenetConfig(path=tmp_path / "imagenet"))
    assert (summary.rows, summary.dropped) == (2 * len(SHAPES), {})
    rows = collection.read(Table.RECORDS).to_pylist()
    assert [row["text"] for row in rows[::2]] == [f"a photo of {indefinite_article(shape)}{shape}" for shape in SHAPES]
    png, cmyk = rows[1], rows[3]  # both named .JPEG
    assert png["path"].endswith(".JPEG")
    assert png["image"].endswith(".png")
    assert Image.open(cmyk["path"]).mode == "CMYK"
    assert Image.open(collection.root / cmyk["image"]).mode == "RGB"


def test_a_file_of_names_goes_before_what_is_known(plain: Path, tmp_path: Path) -> None:
    (plain / NAMES).write_text(f"{TENCH} Schleie\n\nn90000001 zorp, Zorp zorp\n")
    draw(plain / "train" / "n90000001" / "x.JPEG")
    assert captions(Collection(tmp_path / "1"), plain, classes=["tench", "zorp"])[2:] == [
        "a photo of a tench",
        "a photo of a zorp",
    ]
    own = captions(Collection(tmp_path / "2"), plain, names=plain / NAMES, per_class=1)
    assert own == ["a photo of a Schleie", "None", "None", "None", "a photo of a zorp"]
    (plain / NAMES).write_text("tench n01440764\n")
    with pytest.raises(UserError, match="line 1: 'tench n01440764' is not like"):
        captions(Collection(tmp_path / "3"), plain, names=plain / NAMES)


def test_new_names_make_the_records_again(plain: Path, collection: Collection) -> None:
    before = recipes(collection, ImagenetConfig(path=plain))
    (plain / NAMES).write_text(f"{TENCH} tench\n")
    assert recipes(collection, ImagenetConfig(path=plain)) != before


def test_a_caption_with_other_braces_is_refused(plain: Path) -> None:
    for caption in ("a {noun}", "a {", "{0}"):
        with pytest.raises(ValidationError, match="no other braces"):
            ImagenetConfig(path=plain, caption=caption)


def test_the_table_of_names_is_that_of_the_challenge() -> None:
    names = known_synset_names()
    assert len(names) == 21_844
    assert names[TENCH] == ["tench", "Tinca tinca"]
    assert (names[CRANE_BIRD][0], names[CRANE][0], names["n04507155"][0]) == (
        "crane bird",
        "construction crane",
        "umbrella",
    )


@pytest.mark.parametrize(
    ("name", "article"),
    [
        ("tench", "a "), ("otter", "an "), ("umbrella", "an "), ("unicycle", "a "), ("hourglass", "an "),
        ("one-armed bandit", "a "), ("European polecat", "a "), ("sunglasses", ""), ("swim trunks / shorts", ""),
        ("albatross", "an "), ("trolleybus", "a "), ("praying mantis", "a "), ("kite (bird of preys)", "a "),
    ],
)  # fmt: skip
def test_articles(name: str, article: str) -> None:
    assert indefinite_article(name) == article
