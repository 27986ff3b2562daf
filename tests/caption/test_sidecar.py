"""A caption that is written is read again, and no sidecar, however broken, stops a run."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.files.folder_names import FolderNames
from dreamloom.caption.filename import NameWriter
from dreamloom.caption.sidecar import Caption, read_caption, stray_texts
from dreamloom.caption.sidecar_writer import write_sidecar
from dreamloom.scrape.datasets.sidecar_files import find_sidecars

captions = st.text(max_size=300) | st.text("a_.\r\n\ufeff\x00 ", max_size=9)


@given(wanted=st.lists(captions, max_size=8))
def test_any_text_survives_its_name_or_sidecar(wanted: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, writer = tmp_path_factory.mktemp("captions"), NameWriter()
    images = []
    for text in wanted:
        name, needs_sidecar = writer.name(text, ".jpg")
        images.append(folder / name)
        images[-1].touch()
        if needs_sidecar:
            write_sidecar(images[-1], text)
    assert [read_caption(image).text for image in images] == [text if text.strip() else "" for text in wanted]


def test_the_first_of_the_sidecars_wins_over_the_name(tmp_path: Path) -> None:
    image = tmp_path / "from name_1.jpg"
    assert read_caption(image) == Caption("from name", "name")
    for suffix, text, origin in [
        (".yml", "main_prompt: from yml", "from yml|yaml"),
        (".yaml", "main_prompt: from yaml", "from yaml|yaml"),
        (".caption", "from caption", "from caption|caption"),
        (".txt", "from txt", "from txt|txt"),
    ]:
        image.with_suffix(suffix).write_text(text)
        found = read_caption(image)
        assert f"{found.text}|{found.origin}" == origin


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"line one\nline two\n", "line one\nline two"),
        (b"windows\r\n", "windows"),
        ("\ufeffmarked".encode(), "marked"),
        ("café".encode("latin-1"), "café"),
        ("café".encode("utf-16"), "café"),
        ("café, ∞".encode("utf-16-le"), "café, ∞"),  # without its mark
        ("café\r\n".encode("utf-16-be"), "café"),
        (b"a\0b", "a\0b"),
        (b"/etc/passwd", "/etc/passwd"),
    ],
)
def test_texts_are_read_in_the_encodings_that_people_have(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "x y.txt").write_bytes(data)
    assert read_caption(tmp_path / "x y.jpg") == Caption(text, "txt")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("main_prompt: p\ntags:\n- tag: a\n- {tag: b, weight: 1.5}\n- {tag: c, weight: 0.5}\n", "p, b, a, c"),
        ("main_prompt: [p, second]\ntags: [x, p, x]", "p, x"),
        ("caption:\n  main_prompt: p\n", "p"),
        ("caption: p", "p"),
        ("tags: [red]", "a car, red"),
        ("main_prompt: 5", "5"),
    ],
)
def test_yaml_is_read_as_everydream_2_reads_it(tmp_path: Path, document: str, text: str) -> None:
    (tmp_path / "a car_2.yaml").write_text(document)
    assert read_caption(tmp_path / "a car_2.jpg") == Caption(text, "yaml")


@pytest.mark.parametrize(
    "document",
    ["main_prompt: [", "- just\n- a list", "tags: {a: b}", "tags: [{weight: 1}]", "[" * 9000, "caption: [[1]]", "\0"],
)
def test_yaml_that_can_not_be_read_is_passed_over_and_logged(
    tmp_path: Path, document: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a car.yaml").write_text(document)
    assert read_caption(tmp_path / "a car.jpg") == Caption("a car", "name")
    assert "a car.yaml can't be read" in caplog.text


def test_yaml_with_settings_only_leaves_the_name(tmp_path: Path) -> None:
    (tmp_path / "a car.yaml").write_text("multiply: 2\n")
    assert read_caption(tmp_path / "a car.jpg") == Caption("a car", "name")


def test_a_folder_in_the_place_of_a_sidecar_is_no_sidecar(tmp_path: Path) -> None:
    (tmp_path / "a car.txt").mkdir()
    assert read_caption(tmp_path / "a car.jpg") == Caption("a car", "name")


GOOGLE = '{"title": "a.jpg", "description": "%s", "photoTakenTime": {"timestamp": "1"}}'


@pytest.mark.parametrize(
    ("files", "caption"),
    [
        ({"a.json": '{"caption": "from json", "url": "x"}'}, "from json|json"),
        ({"a.jpg.json": '{"text": ["", "first", "second"]}'}, "first|json"),
        ({"a.json": '{"caption": "from json"}', "a.txt": "from txt"}, "from txt|txt"),
        ({"a.json": '{"caption": "from json"}', "a.txt": " "}, "from json|json"),
        ({"a.jpg.supplemental-meta.json": GOOGLE % "a red kite"}, "a red kite|json"),
        ({"a.jpg.json": GOOGLE % ""}, "a|name"),
        ({"a.jpg.json": '{"description": "a page"}'}, "a|name"),
        ({"a.json": '{"Caption": null, "captions": ["in a list"]}'}, "in a list|json"),
        ({"a.json": '{"TEXT": "in capitals"}'}, "in capitals|json"),
        ({"a.json": '{"width": 3}'}, "a|name"),
        ({"a.json": "[1, 2]"}, "a|name"),
        ({"a.json": "{broken"}, "a|name"),
        ({"a.json": '{"caption": {"en": "a cat"}}'}, "a|name"),
    ],
)
def test_json_beside_an_image_may_hold_its_caption(tmp_path: Path, files: dict[str, str], caption: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = read_caption(tmp_path / "a.jpg")
    assert f"{found.text}|{found.origin}" == caption


_LONG = f"{'kite ' * 9}x"  # 46 characters, at which Google Photos cuts


@pytest.mark.parametrize(
    ("image", "sidecar"),
    [
        ("IMG_1.jpg", "IMG_1.jpg.json"),
        ("IMG_1(1).jpg", "IMG_1.jpg(1).json"),
        ("IMG_1-edited.jpg", "IMG_1.jpg.json"),
        ("IMG_1-bearbeitet(1).jpg", "IMG_1.jpg(1).json"),
        ("IMG_1(2).jpg", "IMG_1.jpg.supplemental-metadata(2).json"),
        ("IMG_1(3).jpg", None),
        ("IMG_2(1).jpg", "IMG_2.jpg.supplemental-meta(1).json"),
        (f"{_LONG}x.jpg", f"{_LONG}.json"),
        (f"{_LONG}x(1).jpg", f"{_LONG}(1).json"),
        (f"{_LONG[:-2]}.jpg", f"{_LONG[:-2]}.j.json"),
        ("IMG_1-editedness.jpg", None),
        ("IMG_3-edited.jpg", "IMG_3.HEIC.json"),
        ("IMG_3.jpg", None),
    ],
)
def test_the_json_of_google_photos_is_that_of_its_image(image: str, sidecar: str | None) -> None:
    names = ["IMG_1.jpg.json", "IMG_1.jpg(1).json", "IMG_1.jpg.supplemental-metadata(2).json", "metadata.json"]
    names += ["IMG_2.jpg.supplemental-meta(1).json", f"{_LONG}.json", f"{_LONG}(1).json", f"{_LONG[:-2]}.j.json"]
    names += ["IMG_3.HEIC.json"]
    found = find_sidecars(image, FolderNames([image, "IMG_1.jpg", "IMG_2.jpg", *names]))
    assert found == ([(".json", sidecar)] if sidecar else [])


@pytest.mark.parametrize(
    ("document", "caption"), [('{"caption": "of another"}', "a dog-mix|name"), (GOOGLE % "a kite", "a kite|json")]
)
def test_json_of_another_name_counts_only_if_google_photos_wrote_it(
    tmp_path: Path, document: str, caption: str
) -> None:
    (tmp_path / "a dog.jpg.json").write_text(document)
    found = read_caption(tmp_path / "a dog-mix.jpg", FolderNames(["a dog.jpg", "a dog-mix.jpg", "a dog.jpg.json"]))
    assert f"{found.text}|{found.origin}" == caption


def test_other_json_in_a_folder_is_no_stray_text() -> None:
    assert stray_texts(FolderNames(["a.jpg", "settings.json", "b.txt"])) == ["b.txt"]


def test_a_sidecar_in_other_case_beside_one_that_counts_is_told() -> None:
    assert stray_texts(FolderNames(["a.jpg", "a.txt", "a.TXT", "b.JPG", "b.TXT"])) == ["a.TXT"]
