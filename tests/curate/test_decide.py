"""Decisions about images: how these are named, what is said of them, and that choose heeds it."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.progress import silent
from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.stage import caption
from dreamloom.curate.assemble import balance
from dreamloom.curate.choose import choose, is_current
from dreamloom.curate.config import BalanceConfig, ChooseConfig
from dreamloom.curate.decide import Word, carry_out, check_value, plan_undo, plan_words
from dreamloom.curate.find import find_images
from dreamloom.curate.hand_changes import find_hand_changes
from dreamloom.curate.manifest import content_digest, manifest_path
from dreamloom.curate.source import Role, Source
from dreamloom.curate.trace import trace
from dreamloom.flows.terminal.tables import balance_rows
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.decisions import HAND, SUBJECTS, What
from dreamloom.train.data.folder import read_training_folder
from tests.curate.test_choose import add_scores, verdicts

Make = Callable[..., Collection]


def records(*keys: str, **columns: Any) -> list[dict[str, Any]]:
    return [{"key": key, "text": f"a {key}", "path": f"/mine/{key}_(2).JPG", **columns} for key in keys]


def decide(collection: Collection, names: Sequence[str], what: What, value: str | None = None, **more: Any) -> None:
    carry_out(plan_words(find_images([collection], None, names), [Word(what, value, **more)]))


@pytest.fixture
def cats(make_collection: Make) -> Collection:
    return make_collection("cats", records("aaaa", "bbbb", "cccc", "dddd"))


# Which images


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["aaaa"], ["aaaa"]),
        (["/mine/bbbb_(2).JPG"], ["bbbb"]),
        (["mine/bbbb_(2).JPG"], ["bbbb"]),
        (["bbbb_(2).JPG", "aaaa.png"], ["aaaa", "bbbb"]),
        (["cccc_(2)"], ["cccc"]),
        (["*bb*"], ["bbbb"]),
        (["/mine/*"], ["aaaa", "bbbb", "cccc", "dddd"]),
        (["[ab]*.JPG", "aaaa"], ["aaaa", "bbbb"]),
    ],
    ids=str,
)
def test_images_are_named_as_people_name_them(cats: Collection, names: list[str], found: list[str]) -> None:
    assert [image.key for image in find_images([cats], None, names)] == found


@pytest.mark.parametrize("names", [["nothing"], ["*nothing*"], ["aaa"], []], ids=str)
def test_a_name_that_fits_none_is_told(cats: Collection, names: list[str]) -> None:
    with pytest.raises(UserError):
        find_images([cats], None, names)


def test_a_name_of_several_images_is_told(make_collection: Make) -> None:
    collections = [
        make_collection("cats", records("aaaa")),
        make_collection("dogs", records("aaab", path="/mine/x.jpg")),
    ]
    with pytest.raises(UserError, match="Several images are called aaa"):
        find_images([*collections, make_collection("more", records("aaaa"))], None, ["aaaa"])


def test_a_file_of_the_dataset_names_its_image(cats: Collection, tmp_path: Path, monkeypatch: Any) -> None:
    choose([Source(cats, Role.TRAINING)], ChooseConfig())
    balance([Source(cats, Role.TRAINING)], BalanceConfig(held_out=0), tmp_path)
    monkeypatch.chdir(tmp_path / "dataset")
    for name in ("cats/a aaaa.png", "a aaaa", str(tmp_path / "dataset/cats/a aaaa.png"), "dataset/cats/a aaaa.png"):
        assert [image.key for image in find_images([cats], tmp_path, [name])] == ["aaaa"], name
    kept = find_images([cats], tmp_path, [], "split = 'train' and file like '%aaaa%'")
    assert [image.key for image in kept] == ["aaaa"]


def test_a_pattern_is_of_names_unless_it_has_a_folder(make_collection: Make) -> None:
    places = ("/night/1.jpg", "/night/a night.jpg", "/day/cafe\u0301.jpg")
    collection = make_collection("cats", [{"key": f"{n}", "text": "a", "path": path} for n, path in enumerate(places)])
    for pattern, found in {"*night*": "1", "*/night/*": "01", "night/*": "01", "*caf\u00e9*": "2", "*": "012"}.items():
        assert "".join(image.key for image in find_images([collection], None, [pattern])) == found, pattern


def test_names_are_found_however_accents_are_composed(make_collection: Make) -> None:
    paths = ["/mine/cafe\u0301 one_(2).jpg", "/mine/caf\u00e9 two.jpg"]
    collection = make_collection("cats", [{"key": f"{n}", "text": "a", "path": path} for n, path in enumerate(paths)])
    for name in ("caf\u00e9 one_(2).jpg", "/mine/caf\u00e9 one_(2).jpg", "mine/caf\u00e9 one_(2).jpg", "caf\u00e9 one"):
        assert [image.key for image in find_images([collection], None, [name])] == ["0"], name
    assert [image.key for image in find_images([collection], None, ["cafe\u0301 two"])] == ["1"]


def test_a_condition_asks_all_tables(make_collection: Make) -> None:
    web = add_scores(make_collection("web", records("a", "b")), [{"aesthetic": 3.0}, {"aesthetic": 5.0}])
    mine = add_scores(make_collection("it's mine", records("c")), [{"aesthetic": 1.0}])
    found = find_images([web, mine], None, [], "aesthetic < 4 and source = 'web'")
    assert [(image.collection.name, image.key) for image in found] == [("web", "a")]
    assert [image.key for image in find_images([web, mine], None, [], "source <> 'web' and width > 4")] == ["c"]


@pytest.mark.parametrize(
    "where",
    [
        "aesthetic <",
        "nonsense = 1",
        "1 in (select count(*) from read_text('/etc/hostname'))",
        "true); drop table records; select (true",
        "1 in (select count(*) from '/etc/hostname')",
        "key in (select key from collections)",
    ],
)
def test_a_condition_is_one_expression_on_the_tables(cats: Collection, where: str) -> None:
    collections = [cats]  # nor does it see variables of the program
    with pytest.raises(UserError, match="The condition"):
        find_images(collections, None, [], where)


# What is said


@pytest.mark.parametrize(
    ("what", "value"),
    [
        (What.CROP, "0,0,10"),
        (What.CROP, "10,0,5,5"),
        (What.CROP, "a,b,c,d"),
        (What.CROP, "nan,0,1,1"),
        (What.FOCUS, "0.5"),
        (What.FOCUS, "0.5,1.5"),
        (What.FLIP, "maybe"),
        (What.MULTIPLY, "0"),
        (What.MULTIPLY, "nan"),
        (What.LOSS_SCALE, "1000"),
        (What.ROLE, "teacher"),
    ],
)
def test_a_wrong_value_is_told_with_a_right_one(what: What, value: str) -> None:
    with pytest.raises(UserError, match=f"is no {what}; write"):
        check_value(what, value)


def test_the_same_word_is_not_said_twice(cats: Collection) -> None:
    image = find_images([cats], None, ["aaaa"])
    for what, said in ((What.DROP, 1), (What.DROP, 0), (What.KEEP, 1), (What.DROP, 1)):
        assert carry_out(plan_words(image, [Word(what)])).total() == said


def test_undo_takes_a_command_back_or_the_last_word_of_an_image(cats: Collection) -> None:
    decide(cats, ["aaaa", "bbbb"], What.DROP)
    decide(cats, ["aaaa"], What.CAPTION, "a dog")
    decide(cats, ["bbbb", "cccc"], What.KEEP)
    carry_out(plan_undo([cats], find_images([cats], None, ["aaaa"]), [What.DROP]))
    carry_out(plan_undo([cats], None))
    assert {d.key: (d.what, d.value) for d in cats.decisions().counting()} == {
        "aaaa": ("caption", "a dog"),
        "bbbb": ("drop", None),
    }
    carry_out(plan_undo([cats], None))
    carry_out(plan_undo([cats], None))
    with pytest.raises(UserError, match="no decision to take back"):
        plan_undo([cats], None)


# What choose makes of it


def test_choose_drops_and_keeps_what_is_decided(make_collection: Make) -> None:
    people = add_scores(make_collection("people", records("a", "b", "c")), [{"aesthetic": x} for x in (6, 3, 3)])
    sources, config = [Source(people, Role.GROUND_TRUTH)], ChooseConfig(min_aesthetic=5)
    choose(sources, config)
    before = people.stamps(Table.CHOICES)
    decide(people, ["a_(2)"], What.DROP, reason="blurred")
    decide(people, ["b_(2)"], What.KEEP)
    assert not is_current(sources, config)
    choose(sources, config)
    assert verdicts(people) == [
        ("decided", "by hand: blurred"),
        ("kept", None),
        ("low_aesthetic", "aesthetic 3.000 < 5"),
    ]
    for _ in range(2):
        carry_out(plan_undo([people], None))
    choose(sources, config)
    assert people.stamps(Table.CHOICES) == before


def test_of_copies_the_kept_one_stays_and_a_dropped_one_makes_way(make_collection: Make) -> None:
    people = make_collection("people", records("a", "b", sha256="same"))
    sources = [Source(people, Role.GROUND_TRUTH)]
    decide(people, ["b_(2)"], What.KEEP)
    choose(sources, ChooseConfig())
    assert verdicts(people) == [("duplicate", "repeats people/b, which a decision keeps"), ("kept", None)]
    decide(people, ["b_(2)"], What.DROP)
    choose(sources, ChooseConfig())
    assert verdicts(people) == [("kept", None), ("decided", "by hand")]


def test_what_is_kept_counts_towards_the_maximum(make_collection: Make) -> None:
    people = make_collection("people", records("a", "b", "c"))
    sources, config = [Source(people, Role.GROUND_TRUTH)], ChooseConfig(max_ground_truth=1)
    for name in ("a_(2)", "b_(2)"):
        decide(people, [name], What.KEEP)
    choose(sources, config)
    assert [choice for choice, _ in verdicts(people)] == ["kept", "kept", "surplus"]


def test_the_history_tells_what_was_decided_by_whom_and_when(cats: Collection) -> None:
    decide(cats, ["aaaa"], What.DROP, reason="blurred")
    decide(cats, ["aaaa"], What.KEEP, who="where width > 3")
    told = [value for subject, value in trace(cats.root, "aaaa_(2)") if subject == "decided"]
    time = cats.decisions().rows[0].time[:16].replace("T", " ")
    assert told == [f"drop, by hand (blurred) on {time} UTC", f"keep, by where width > 3 on {time} UTC"]


# What balance makes of it


@pytest.fixture
def assembled(cats: Collection, make_collection: Make, tmp_path: Path) -> Callable[[], Path]:
    """Makes the training folder of two cats and two people, in a ratio of 1."""
    cats = make_collection("cats", records("aaaa", "bbbb"))
    people = make_collection("people", records("cccc", "dddd"))
    sources = [Source(cats, Role.TRAINING), Source(people, Role.GROUND_TRUTH)]

    def make() -> Path:
        choose(sources, ChooseConfig())
        balance(sources, BalanceConfig(held_out=0), tmp_path)
        return tmp_path / "dataset"

    return make


def images_of(dataset: Path) -> dict[str, Any]:
    folders = read_training_folder(dataset)
    return {Path(image.name).stem: image for folder in folders for image in folder.images}


def test_a_rated_image_is_shown_more_often_and_the_ratio_stays(assembled: Any, cats: Collection) -> None:
    before = content_digest(manifest_path(assembled().parent))
    decide(cats, ["aaaa"], What.MULTIPLY, "3")
    decide(cats, ["aaaa"], What.LOSS_SCALE, "0.5")
    decide(cats, ["bbbb"], What.FLIP, "no")
    images = images_of(assembled())
    assert (images["a aaaa"].settings.multiply, images["a bbbb"].settings.multiply) == (3, 1)
    assert (images["a aaaa"].settings.loss_scale, images["a bbbb"].settings.flip_p) == (0.5, 0.0)
    assert (images["a cccc"].settings.multiply, images["a aaaa"].caption) == (2, "a aaaa")
    assert [row["shown per epoch"] for row in balance_rows(assembled().parent)] == [4, 4, 8]
    for _ in range(3):
        carry_out(plan_undo([cats], None))
    assert content_digest(manifest_path(assembled().parent)) == before


def test_a_crop_is_what_is_trained_on_and_the_image_stays(assembled: Any, cats: Collection) -> None:
    before = content_digest(manifest_path(assembled().parent))
    whole = Image.open(assembled() / "cats" / "a aaaa.png").copy()
    decide(cats, ["aaaa"], What.CROP, "0.5,0,1,0.5")
    decide(cats, ["bbbb"], What.CROP, "8,10,900,900")
    cropped = Image.open(assembled() / "cats" / "a aaaa.png")
    assert cropped.tobytes() == whole.crop((24, 0, 48, 20)).tobytes()
    assert Image.open(assembled() / "cats" / "a bbbb.png").size == (40, 30)
    assert content_digest(manifest_path(assembled().parent)) != before
    assert Image.open(next(cats.root.glob("images/*/aaaa.png"))).size == whole.size
    decide(cats, ["aaaa"], What.CROP, "100,100,200,200")
    with pytest.raises(UserError, match="the image has 48 × 40 pixels"):
        assembled()


def test_a_focus_lies_beside_the_image_also_of_one_that_is_held_out(
    assembled: Any, cats: Collection, tmp_path: Path
) -> None:
    before = content_digest(manifest_path(assembled().parent))
    decide(cats, ["aaaa"], What.FOCUS, "0.25,1")
    decide(cats, ["bbbb"], What.FOCUS, "0.5,0")
    decide(cats, ["bbbb"], What.ROLE, "witness")
    decide(cats, ["bbbb"], What.MULTIPLY, "2")
    assert images_of(assembled())["a aaaa"].settings.focus == (0.25, 1.0)
    assert images_of(tmp_path / "heldout" / "witness")["a bbbb"].settings.focus == (0.5, 0.0)
    assert content_digest(manifest_path(tmp_path)) != before
    beside = tmp_path / "heldout" / "witness" / "cats" / "a bbbb.yaml"
    beside.write_text("focus: 0.5,0.5")
    os.utime(beside, (manifest_path(tmp_path).stat().st_mtime + 1,) * 2)
    assert [change.says for change in find_hand_changes(tmp_path)] == [((What.FOCUS, "0.5,0.5"),)]


def test_a_witness_is_held_out_and_never_trained_on(assembled: Any, cats: Collection) -> None:
    decide(cats, ["aaaa"], What.ROLE, "witness")
    dataset = assembled()
    assert images_of(dataset).keys() == {"a bbbb", "a cccc", "a dddd"}
    assert (dataset.parent / "heldout" / "witness" / "cats" / "a aaaa.png").is_file()


# Whatever happens


class _Killed(BaseException):
    """Ends a stage between two of its commits."""


def _killing(after: int) -> Callable[..., None]:
    left = [after]

    def progress(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise _Killed

    return progress


_OPERATIONS = st.one_of(
    st.tuples(
        st.sampled_from(["aaaa", "cccc"]),
        st.sampled_from([(What.DROP, None), (What.KEEP, None), (What.CAPTION, "my cat"), (What.MULTIPLY, "2")]),
        st.sampled_from([HAND, "where true"]),
    ),
    st.just("undo"),
    st.just("rerun"),
    st.integers(0, 5),  # killed after so many calls of progress
)


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(_OPERATIONS, min_size=2, max_size=5))
def test_any_sequence_ends_in_the_state_that_the_decisions_say(
    make_collection: Make, tmp_path: Path, operations: list[Any]
) -> None:
    cats = make_collection("cats", records("aaaa", "bbbb"), part_rows=1)
    people = make_collection("people", records("cccc", "dddd", sha256="same"), part_rows=1)
    sources = [Source(cats, Role.TRAINING), Source(people, Role.GROUND_TRUTH)]
    for collection in (cats, people):
        shutil.rmtree(collection.root / "decisions", ignore_errors=True)

    def rerun(progress: Callable[..., None] = silent) -> list[Any]:
        choose(sources, ChooseConfig(), progress)
        for source in sources:
            caption(source.collection, CaptionConfig(), progress)
        balance(sources, BalanceConfig(held_out=0), tmp_path, progress)
        files = {f.relative_to(tmp_path): f.read_bytes() for f in (tmp_path / "dataset").rglob("*") if f.is_file()}
        return [files, *(s.collection.read(t) for s in sources for t in (Table.CHOICES, Table.CAPTIONS))]

    for operation in operations:
        if operation == "rerun":
            rerun()
        elif operation == "undo":
            with suppress(UserError):  # there is nothing to take back
                carry_out(plan_undo([cats, people], None))
        elif isinstance(operation, int):
            with suppress(_Killed):
                rerun(_killing(operation))
        else:
            key, (what, value), who = operation
            decide(cats if key == "aaaa" else people, [key], what, value, who=who)
    after = rerun()
    for made in (*tmp_path.glob("collections/*/c[ha]*s"), tmp_path / "dataset", tmp_path / "heldout"):
        shutil.rmtree(made)
    manifest_path(tmp_path).unlink()
    assert rerun() == after
    words = {(d.key, SUBJECTS[d.what]): d for c in (cats, people) for d in c.decisions().counting()}
    choices = {row["key"]: row["choice"] for t in (after[1], after[3]) for row in t.to_pylist()}
    for key, word in ((key, word) for (key, subject), word in words.items() if subject == "choice"):
        assert choices[key] == ("kept" if word.what is What.KEEP else "decided")
    captions = {row["key"]: row["caption"] for t in (after[2], after[4]) for row in t.to_pylist()}
    said = {key: word.value for (key, subject), word in words.items() if subject == "caption"}
    assert captions == {key: said.get(key, f"a {key}") for key in captions}
