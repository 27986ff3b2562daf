"""Reading EveryDream's training folder."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.train.data.folder import read_training_folder
from dreamloom.train.data.image import ImageSettings


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_folders_are_read_at_any_depth_in_order_of_name(tmp_path: Path) -> None:
    touch(tmp_path / "b" / "two cats_(1).JPG", tmp_path / "a" / "deep" / "a dog.png", tmp_path / "a" / "notes.txt")
    touch(tmp_path / "b" / "a cat.webp", tmp_path / ".hidden" / "x.jpg", tmp_path / "b" / ".x.jpg")
    deep, b = read_training_folder(tmp_path)
    assert (deep.name, b.name) == ("a/deep", "b")
    assert [image.caption for image in b.images] == ["a cat", "two cats"]
    assert deep.images[0].source.path == tmp_path / "a" / "deep" / "a dog.png"


def test_images_in_the_root_are_read_too(tmp_path: Path) -> None:
    touch(tmp_path / "a cat.jpg")
    assert [folder.name for folder in read_training_folder(tmp_path)] == ["."]


def test_a_sidecar_wins_over_the_name_and_an_empty_caption_is_legal(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "_001.jpg", tmp_path / "a" / "name_1.jpg")
    (tmp_path / "a" / "name_1.txt").write_text("what it says inside")
    assert [image.caption for image in read_training_folder(tmp_path)[0].images] == ["", "what it says inside"]


def test_a_link_that_leads_back_up_is_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [folder.name for folder in read_training_folder(tmp_path)] == ["a"]


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def settings(folder: Path) -> ImageSettings:
    return read_training_folder(folder)[0].images[0].settings


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("0.025", Fraction(1, 40)),
        ("1/3\n", Fraction(1, 3)),
        (" .5 ", Fraction(1, 2)),
        ("\ufeff4", 4),
        ("0.3333333333333333", Fraction(3333333333333333, 10**16)),
        ("1e-05", Fraction(1, 100_000)),
        ("1.5E2", 150),
    ],
)
def test_multiply_is_exact(tmp_path: Path, text: str, value: Fraction) -> None:
    touch(tmp_path / "x.jpg")
    write(tmp_path / "multiply.txt", text)
    assert settings(tmp_path).multiply == read_training_folder(tmp_path)[0].multiply == value


@pytest.mark.parametrize(
    ("file", "text"),
    [
        *(("multiply.txt", text) for text in ("", "two", "-1", "0,5", "1e-999", "nan", "1/0", "1/00", "1e9", "10001")),
        *(("flip_p.txt", text) for text in ("1.1", "-0.5", "yes")),
        ("cond_dropout.txt", "2"),
        ("loss_scale.txt", "x"),
        ("loss_scale.txt", "1000"),
        ("local.yaml", "multiply: often"),
        ("local.yaml", "cond_droput: 0.1"),
        ("local.yaml", "- a list"),
        ("global.yml", "shuffle_tags: perhaps"),
        ("x.yaml", "main_prompt: p\nflip_p: 3"),
        ("x.yaml", "main_prompt: p\nflip_p: 0.5\nflop: 1"),
    ],
)
def test_a_control_file_that_says_what_cannot_be_is_the_users_error(tmp_path: Path, file: str, text: str) -> None:
    touch(tmp_path / "x.jpg")
    write(tmp_path / file, text)
    with pytest.raises(UserError, match=file.replace(".", r"\.")):
        read_training_folder(tmp_path)


def test_each_control_file_holds_for_its_folder(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.jpg", tmp_path / "a" / "below" / "y.jpg", tmp_path / "a" / "shuffle_tags.txt")
    for name, text in [("flip_p", "0.5"), ("cond_dropout", "0"), ("loss_scale", "-.25"), ("batch_id", "horses\n")]:
        write(tmp_path / "a" / f"{name}.txt", text)
    own, below = read_training_folder(tmp_path)
    assert own.images[0].settings == ImageSettings(
        flip_p=0.5, cond_dropout=0.0, loss_scale=-0.25, batch_id="horses", shuffle_tags=True
    )
    assert below.images[0].settings == ImageSettings()


def test_mrec_a_parents_multiply_txt_does_not_count_and_its_global_yaml_does(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "b" / "x.jpg")
    write(tmp_path / "a" / "multiply.txt", "3")
    assert settings(tmp_path).multiply == 1
    write(tmp_path / "global.yaml", "multiply: 2\nflip_p: 0.5")
    write(tmp_path / "a" / "global.yml", "multiply: 0.25\nrating: 3")
    assert settings(tmp_path) == ImageSettings(Fraction(1, 4), flip_p=0.5), "the nearest replaces, the others stay"


def test_the_nearer_says_more(tmp_path: Path) -> None:
    """An image's own YAML, then local.yaml, then multiply.txt, then global.yaml; .yml before .yaml."""
    touch(tmp_path / "x.jpg")
    for file, multiply in [("global.yaml", 5), ("multiply.txt", 4), ("local.yaml", 3), ("local.yml", 2), ("x.yaml", 1)]:
        write(tmp_path / file, str(multiply) if file.endswith("txt") else f"multiply: {multiply}")
        assert settings(tmp_path).multiply == multiply


def test_settings_in_an_images_yaml_count_beside_its_txt(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg")
    write(tmp_path / "x.yaml", "loss_scale: 0.5\nmain_prompt: from yaml")
    write(tmp_path / "x.txt", "from txt")
    (image,) = read_training_folder(tmp_path)[0].images
    assert (image.caption, image.settings.loss_scale) == ("from txt", 0.5)


def test_a_yaml_of_another_program_is_no_sidecar(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg")
    write(tmp_path / "x.yaml", "width: 512\nsource: camera")
    (image,) = read_training_folder(tmp_path)[0].images
    assert (image.caption, image.settings) == ("x", ImageSettings())


def test_cap_19_tags_of_all_levels_add_up_and_the_nearest_prompt_serves_those_without(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.jpg", tmp_path / "a" / "name_1.jpg", tmp_path / "name_2.jpg")
    write(tmp_path / "a" / "x.txt", "own")
    write(tmp_path / "a" / "local.yaml", "tags: [ftag, gtag]")
    write(tmp_path / "global.yaml", "tags: [gtag, {tag: heavy, weight: 2}]")
    root, a = read_training_folder(tmp_path)
    assert [p.caption for p in a.images] == ["name, heavy, ftag, gtag", "own, heavy, ftag, gtag"]
    assert a.images[0].tag_weights == (("heavy", 2.0),)
    assert root.images[0].caption == "name, heavy, gtag"
    write(tmp_path / "a" / "local.yaml", "main_prompt: a horse, galloping\ntags: [galloping]")
    assert [p.caption for p in read_training_folder(tmp_path)[1].images] == [
        "a horse, galloping, heavy, gtag",
        "own, heavy, galloping, gtag",
    ]


def test_cap_17_an_images_yaml(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg")
    write(
        tmp_path / "x.yaml",
        "main_prompt: p\ntags:\n- a\n- {tag: b, weight: 1.5}\n- {tag: c, weight: 0.5}\nmultiply: 2\n",
    )
    (image,) = read_training_folder(tmp_path)[0].images
    assert (image.caption, image.tag_weights) == ("p, b, a, c", (("b", 1.5), ("c", 0.5)))
    assert image.settings.multiply == 2


def test_a_folder_with_nothing_to_show_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        read_training_folder(tmp_path / "missing")
    with pytest.raises(UserError, match="no images"):
        read_training_folder(tmp_path)
    touch(tmp_path / "a" / "x.jpg")
    (tmp_path / "a" / "multiply.txt").write_text("0")
    with pytest.raises(UserError, match=r"multiply\.txt"):
        read_training_folder(tmp_path)


broken = st.one_of(
    st.text(max_size=40),
    st.text("0123456789./-e \n", max_size=8),
    st.text("abc:-[]{}&*!|>'\"#% \n\t0.5", max_size=40),
    st.sampled_from(
        ["tags: 5", "tags: [{tag: x, weight: heavy}]", "caption: {tags: {a: b}}", "? [", "[" * 3000, "multiply: [1]"]
    ),
)


@given(
    file=st.sampled_from(
        ["multiply.txt", "flip_p.txt", "loss_scale.txt", "batch_id.txt", "local.yaml", "global.yml", "x.yaml", "x.txt"]
    ),
    text=broken,
)
def test_whatever_a_control_file_holds_it_is_read_or_the_users_error(
    file: str, text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    touch(folder / "x.jpg")
    (folder / file).write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        (read,) = read_training_folder(folder)
    except UserError as error:
        assert str(folder) in str(error)
    else:
        assert read.images[0].settings.multiply > 0
