"""Reading EveryDream's training folder."""

import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.base.errors import UserError
from dreamloom.train.data.folder import read_training_folder
from dreamloom.train.data.image import ImageSettings
from dreamloom.train.data.notes import Notes


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


def test_what_systems_masks_and_runs_leave_is_left_out_and_counted(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.jpg", tmp_path / "a" / "@eaDir" / "x.jpg" / "SYNOPHOTO_THUMB_XL.jpg")
    touch(tmp_path / "$RECYCLE.BIN" / "$R1.png", tmp_path / "a" / "x-masklabel.png", tmp_path / "a" / "._x.jpg")
    touch(tmp_path / "a" / "run" / "samples" / "1.png")
    (tmp_path / "a" / "run" / "config.json").write_text('{"recipe": "", "folder": "", "heldout": "", "config": {}}')
    notes = Notes()
    (folder,) = read_training_folder(tmp_path, notes)
    assert [image.name for image in folder.images] == ["a/x.jpg"]
    assert notes.left_out == {"system": 3, "mask": 1, "run": 1}
    assert notes.sentences()[-1].startswith("5 images are left out: ")


def test_a_workspace_and_a_run_are_no_training_folders(tmp_path: Path) -> None:
    touch(tmp_path / "dataset" / "car" / "x.jpg", tmp_path / "heldout" / "training" / "car" / "y.jpg")
    with pytest.raises(UserError, match=r"whole workspace, one level too high; name \S+/dataset"):
        read_training_folder(tmp_path)
    assert [folder.name for folder in read_training_folder(tmp_path / "dataset")] == ["car"]


def test_a_link_that_leads_back_up_is_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [folder.name for folder in read_training_folder(tmp_path)] == ["a"]


def test_an_image_that_a_link_no_longer_leads_to_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg")
    (tmp_path / "y.jpg").symlink_to(tmp_path / "an unmounted disk" / "y.jpg")
    (folder,) = read_training_folder(tmp_path)
    assert folder.broken == (("y.jpg", "missing_file"),) and len(folder.images) == 1


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
        ("+2", 2),
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
    assert (image.caption, image.captions[0].tags) == ("p, b, a, c", (("a", 1.0), ("b", 1.5), ("c", 0.5)))
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


def captions(folder: Path) -> list[str]:
    return [image.caption for image in read_training_folder(folder)[0].images]


def notes(folder: Path) -> str:
    found = Notes()
    read_training_folder(folder, found)
    return "\n".join(found.sentences())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"])
def test_control_files_in_the_encodings_that_people_have(tmp_path: Path, encoding: str) -> None:
    touch(tmp_path / "x.jpg", tmp_path / "y.jpg")
    (tmp_path / "multiply.txt").write_text("2\r\n", encoding)
    (tmp_path / "local.yaml").write_text("tags: [café]\n", encoding)
    (tmp_path / "y.yaml").write_text("main_prompt: naïve\n", encoding)
    assert settings(tmp_path).multiply == 2
    assert captions(tmp_path) == ["x, café", "naïve, café"]


@pytest.mark.parametrize("name", ["Multiply.txt", "multiply.txt.txt", "MULTIPLY.TXT", "Local.YAML", "global.yml.txt"])
def test_names_of_control_files_in_any_case_and_with_the_extension_that_windows_hides(
    tmp_path: Path, name: str
) -> None:
    touch(tmp_path / "x.jpg")
    write(tmp_path / name, "3" if "ulti" in name.lower() else "multiply: 3")
    assert settings(tmp_path).multiply == 3
    assert notes(tmp_path) == ""


def test_of_two_control_files_of_one_name_everydreams_own_is_read_and_the_other_told(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg")
    write(tmp_path / "multiply.txt", "2")
    write(tmp_path / "Multiply.txt", "3")
    assert settings(tmp_path).multiply == 2
    assert "Multiply.txt" in notes(tmp_path)


def test_sidecars_in_any_case_and_with_the_whole_name(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("IMG_1.JPG", "IMG_2.jpg", "IMG_3.jpg", "b.jpg", "B.jpg")))
    for name in ("IMG_1.TXT", "img_2.jpg.txt", "IMG_3.txt.txt", "b.txt"):
        write(tmp_path / name, name)
    assert captions(tmp_path) == ["B", "IMG_1.TXT", "img_2.jpg.txt", "IMG_3.txt.txt", "b.txt"]
    assert notes(tmp_path) == ""


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("caption: 'a, b'\ntags: [c]", "a, b, c"),
        ("tags: red, blue", "x, red, blue"),
        ("tags:\n-\n- red\n", "x, red"),
        ("tags: [{tag: red, weight: }, {tag: blue, weight: 2}]", "x, blue, red"),
        ("main_prompt: no\ntags: [1:1, 007, 1.10, true]", "no, 1:1, 007, 1.10, true"),
        ("main_prompt:\ntags: [red]", "x, red"),
        ("main_prompt: ' '", "x"),
        ("caption: {main_prompt: p}\nmultiply: 3", "p"),
        ("caption: {tags: [t]}\nmain_prompt: p", "p, t"),
    ],
)
def test_an_images_yaml_as_its_owner_meant_it(tmp_path: Path, text: str, caption: str) -> None:
    touch(tmp_path / "x.jpg")
    write(tmp_path / "x.yaml", text)
    assert captions(tmp_path) == [caption]
    assert settings(tmp_path).multiply == (3 if "3" in text else 1)


def test_yaml_and_yml_add_up(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg")
    write(tmp_path / "local.yml", "flip_p: 0.5\ntags: [b]")
    write(tmp_path / "local.yaml", "flip_p: 0.25\ncond_dropout: 0.5\ntags: [c]")
    write(tmp_path / "x.yaml", "main_prompt: p\ntags: [a]")
    write(tmp_path / "x.yml", "main_prompt: other\nmultiply: 2\ntags: [d]")
    assert captions(tmp_path) == ["p, a, d, b, c"]
    assert settings(tmp_path) == ImageSettings(Fraction(2), flip_p=0.5, cond_dropout=0.5)


def test_a_weighted_tag_stands_before_a_file_names_tags(tmp_path: Path) -> None:
    touch(tmp_path / "a car, old_1.jpg")
    write(tmp_path / "local.yaml", "tags: [{tag: 'red, shiny', weight: 2}, late, {tag: last, weight: 0.5}]")
    assert captions(tmp_path) == ["a car, red, shiny, old, late, last"]


def test_a_list_of_main_prompts_gives_an_image_several_captions(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg")
    write(tmp_path / "local.yaml", "main_prompt: [one, 'two, three']\ntags: [t]")
    (image,) = read_training_folder(tmp_path)[0].images
    assert [each.caption for each in image.captions] == ["one, t", "two, three, t"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("x.yaml", "main_prompt: p\ncond_droput: 0.1"),
        ("x.yaml", "tags: [p]\ncond_droput: 0.1"),
        ("x.yaml", "cond_droput: 0.1"),
        ("x.yaml", "Main_Prompt: ted\nTags: [red]"),
        ("x.yaml", "main-prompt: ted"),
        ("x.yaml", "main_promt: ted"),
        ("local.yaml", "tags: [{tag: a, weights: 2}]"),
        ("local.yaml", "main_prompt: !!binary aGVsbG8="),
        ("local.yaml", "tags: !!omap [a: b]"),
        ("local.yaml", "multiply: 1:1"),
        ("local.yaml", "multiply: 1\nmultiply: 2"),
        ("local.yaml", "tags: [{tag: a, weight: heavy}]"),
        (
            "global.yaml",
            "a: &a [x,x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1 or ''},*a{n - 1 or ''}]\n" for n in range(1, 30)),
        ),
    ],
)
def test_what_was_misspelt_does_not_go_unnoticed(tmp_path: Path, file: str, text: str) -> None:
    touch(tmp_path / "x.jpg")
    write(tmp_path / file, text)
    with pytest.raises(UserError, match=file.replace(".", r"\.")):
        read_training_folder(tmp_path)


def test_a_blank_sidecar_is_no_caption_and_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "x y.jpg", tmp_path / "z.jpg", tmp_path / "z.txt")
    write(tmp_path / "x y.txt", " \n")
    write(tmp_path / "z.caption", "from caption")
    assert captions(tmp_path) == ["x y", "from caption"]
    assert notes(tmp_path) == "blank sidecars, which are no captions: x y.jpg."


def test_text_files_that_belong_to_nothing_are_told(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.jpg", tmp_path / "a" / "x.txt", tmp_path / "a" / "notes.md")
    touch(*(tmp_path / "a" / f"y{n}.txt" for n in range(9)), tmp_path / "readme.TXT", tmp_path / "a" / "mulitply.txt")
    sentence = notes(tmp_path).splitlines()[0]
    assert sentence.startswith("text files that belong to no image: readme.TXT, a/mulitply.txt, a/y0.txt")
    assert sentence.endswith("and 6 more.")
    touch(tmp_path / "a" / "x.tags")
    assert "files that may hold captions and are not read: a/x.tags." in notes(tmp_path)


def test_a_file_name_that_is_not_utf_8_gives_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert captions(tmp_path) == ["café"]


def test_a_shuffle_tags_that_says_no_is_told(tmp_path: Path) -> None:
    """As in EveryDream, the file shuffles by being there."""
    (tmp_path / "a cat, red, blue.png").touch()
    (tmp_path / "shuffle_tags.txt").write_text("False\n")
    notes = Notes()
    (folder,) = read_training_folder(tmp_path, notes)
    assert folder.images[0].settings.shuffle_tags and "say no, and count" in "".join(notes.sentences())
    (tmp_path / "shuffle_tags.txt").write_text("")
    read_training_folder(tmp_path, notes := Notes())
    assert not notes.sentences()
