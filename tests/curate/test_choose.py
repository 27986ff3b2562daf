"""What the choices are, which rule each names, and what makes them stale."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.images.buckets import find_bucket
from dreamloom.base.images.near_duplicates import mirror_hashes
from dreamloom.base.stage import Summary
from dreamloom.curate.choose import choose, is_current
from dreamloom.curate.config import ChooseConfig, NearDuplicates, ScoreConfig
from dreamloom.curate.deciding import read_images
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import CaptionKind, Choice, Collection, Status, Table
from tests.curate.conftest import noise

Make = Callable[..., Collection]
TRAINING, TRUTH = Role.TRAINING, Role.GROUND_TRUTH


def add_scores(collection: Collection, scores: Sequence[Mapping[str, Any] | None], **config: Any) -> Collection:
    """Scores as the score stage would write them; None: an image that could not be decoded."""
    rows = iter(scores)
    for part in collection.parts(Table.RECORDS):
        records = [r for r in collection.read(Table.RECORDS, part).to_pylist() if r["status"] == Status.OK]
        made = []
        for record in records:
            one = np.random.default_rng(list(record["key"].encode())).normal(size=8)
            row = {"embedding": one / np.linalg.norm(one), "phash": int.from_bytes(one.tobytes()[:8], signed=True)}
            given = next(rows, {})
            if given is not None:
                made.append({"key": record["key"], **row, **given})
        kept = Summary(rows=len(records), kept=len(made), dropped={"truncated": len(records) - len(made)})
        made_by = ScoreConfig(**{"aesthetic_head": Path("head.pth"), **config})
        models = {"clip": Path(made_by.model).name}
        if made_by.aesthetic_head is not None:
            models["head"] = "fingerprint"
        stamp = f"scores {scores} {made_by}"
        collection.write(Table.SCORES, part, made, recipe=stamp, config=made_by, summary=kept, models=models)
    return collection


def verdicts(collection: Collection) -> list[tuple[str, str | None]]:
    return [(row["choice"], row["detail"]) for row in collection.read(Table.CHOICES).to_pylist()]


def keys(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"key": f"k{first + number:02d}"} for number in range(count)]


def test_every_rule_is_named_with_what_broke_it(make_collection: Make) -> None:
    records = [r | {"licence": "Attribution-NonCommercial License"} if i == 1 else r for i, r in enumerate(keys(5))]
    scores = [{"aesthetic": a, "similarity": s} for a, s in ((6, 0.3), (7, 0.3), (4.5, 0.3), (6, 0.1), (6, None))]
    people = add_scores(make_collection("people", records), scores)
    config = ChooseConfig(min_aesthetic=5, min_similarity=0.2, exclude_licences=["noncommercial"])
    summary = choose([Source(people, TRUTH)], config)
    assert verdicts(people) == [
        (Choice.KEPT, None),
        (Choice.LICENCE, "Attribution-NonCommercial License"),
        (Choice.LOW_AESTHETIC, "aesthetic 4.500 < 5"),
        (Choice.LOW_SIMILARITY, "similarity 0.100 < 0.2"),
        (Choice.KEPT, None),
    ]
    assert (summary.rows, summary.kept) == (5, 2)
    assert summary.dropped == {"licence": 1, "low_aesthetic": 1, "low_similarity": 1}


def test_the_users_own_images_are_held_to_no_taste(make_collection: Make) -> None:
    scores = [{"aesthetic": 1.0, "similarity": -0.5}]
    car = add_scores(make_collection("car", [{"licence": "by-nc"}]), scores)
    choose([Source(car, TRAINING)], ChooseConfig(min_aesthetic=5, min_similarity=0.2, exclude_licences=["by-nc"]))
    assert verdicts(car) == [(Choice.KEPT, None)]


@pytest.mark.parametrize(
    ("licence", "address", "words", "kept"),
    [
        ("Attribution License", "http://creativecommons.org/licenses/by/2.0/", ["by-nc", "NonCommercial"], True),
        ("Attribution-NonCommercial License", None, ["noncommercial "], False),
        (None, "http://creativecommons.org/licenses/by-nc-sa/2.0/", ["BY-NC"], False),
        (None, None, ["by-nc"], True),
        (None, None, ["unknown"], False),
        ("?", None, ["unknown"], False),
        ("CC0", None, ["unknown"], True),
    ],
)
def test_licences_are_excluded_by_words(
    make_collection: Make, licence: str | None, address: str | None, words: list[str], kept: bool
) -> None:
    people = make_collection("people", [{"licence": licence, "licence_url": address}])
    choose([Source(people, TRUTH)], ChooseConfig(exclude_licences=words))
    assert (verdicts(people)[0][0] == Choice.KEPT) is kept


SAME = {"width": 64, "height": 64, "bytes": 4096, "sha256": "5a"}


def test_of_equal_copies_the_first_stays(make_collection: Make) -> None:
    """Training before ground truth whatever the order given, then sources in order, then records in order."""
    faces = make_collection("faces", [{"key": "b", **SAME}, {"key": "a", **SAME}])
    car = make_collection("car", [{"key": "z"}, {"key": "y", **SAME}])
    scenes = make_collection("scenes", [{"key": "c", **SAME, "sha256": "7b"}, {"key": "0", **SAME}])
    more = make_collection("more", [{"key": "a", **SAME, "sha256": "7b"}])
    choose([Source(faces, TRUTH), Source(scenes, TRUTH), Source(more, TRUTH), Source(car, TRAINING)], ChooseConfig())
    assert verdicts(car) == [(Choice.KEPT, None)] * 2
    assert verdicts(faces) == [(Choice.DUPLICATE, "repeats car/y, which is of training")] * 2
    assert verdicts(scenes) == [(Choice.KEPT, None), (Choice.DUPLICATE, "repeats car/y, which is of training")]
    assert verdicts(more) == [(Choice.DUPLICATE, "repeats scenes/c, which comes first")]


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        ({"width": 640, "height": 400}, {"width": 320, "height": 200}, "is larger: 640 × 400, not 320 × 200"),
        ({"width": 640, "height": 400}, {"width": 320, "bytes": 10**6}, "is larger: 640 × 400, not 320 × 64"),
        ({"bytes": 8192}, {"bytes": 4096}, "is less compressed: 2.00 bytes a pixel, not 1.00"),
        ({"text_kind": CaptionKind.HUMAN}, {"text_kind": CaptionKind.ALT}, "has a human caption"),
        ({"bytes": 1}, {"width": None, "height": None, "bytes": None}, "is larger: 64 × 64, not 0 × 0"),
    ],
)
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("is_near", [False, True])
def test_the_better_copy_stays_whatever_its_key(
    make_collection: Make, better: dict[str, Any], worse: dict[str, Any], why: str, order: int, is_near: bool
) -> None:
    """Also where it lies in a later source."""
    records = [{**SAME, "key": "aa", **better}, {**SAME, "key": "bb", **worse}]
    if is_near:
        records[0] |= {"sha256": "other"}
    if order:
        records[0]["key"], records[1]["key"] = "bb", "aa"
        records.reverse()
    one, two = (make_collection(name, [record]) for name, record in zip(("one", "two"), records, strict=True))
    for collection in (one, two):
        add_scores(collection, [{"phash": 5, "embedding": [1.0]}])
    choose([Source(one, TRUTH), Source(two, TRUTH)], ChooseConfig())
    stayed, dropped = (two, one) if order else (one, two)
    assert verdicts(stayed) == [(Choice.KEPT, None)]
    choice = Choice.NEAR_DUPLICATE if is_near else Choice.DUPLICATE
    assert verdicts(dropped) == [(choice, f"repeats {stayed.name}/{'bb' if order else 'aa'}, which {why}")]


def test_several_captions_of_one_download_all_go_on(make_collection: Make) -> None:
    """Copies from another address are dropped as ever."""
    records = [
        {**SAME, "key": key, "url": f"http://a/{url}.jpg", "text": key} for key, url in zip("abc", "xxy", strict=True)
    ]
    web = add_scores(make_collection("web", records), [{"phash": 5, "embedding": [1.0]}] * 3)
    choose([Source(web, TRUTH)], ChooseConfig())
    assert [choice for choice, _ in verdicts(web)] == [Choice.KEPT, Choice.KEPT, Choice.DUPLICATE]


def test_similar_images_are_found_mirrored_and_more_bits_apart(make_collection: Make) -> None:
    value = 0x0F0F_1234_5678_9ABC
    mirrored = int(mirror_hashes(np.array([value], dtype=np.uint64)).view(np.int64)[0])
    hashes = [value, value ^ 0b11111, value ^ 0b11111111111, mirrored ^ 0b11]
    scores = [{"phash": phash, "embedding": [1.0, 0.0]} for phash in hashes]
    people = add_scores(make_collection("people", [{**SAME, **key, "sha256": None} for key in keys(4)]), scores)

    def dropped(kind: NearDuplicates) -> list[int]:
        choose([Source(people, TRUTH)], ChooseConfig(near_duplicates=kind))
        return [row for row, (choice, _) in enumerate(verdicts(people)) if choice == Choice.NEAR_DUPLICATE]

    assert dropped(NearDuplicates.OFF) == []
    assert dropped(NearDuplicates.STRICT) == []
    assert dropped(NearDuplicates.SIMILAR) == [1, 3]


def test_a_crop_repeats_the_image_that_it_is_of(make_collection: Make) -> None:
    """Their hashes say nothing of it; the pixels of those that CLIP finds alike do."""
    whole = noise(1, 120, 90)
    contents = [whole, whole.crop((24, 0, 120, 72)), noise(2, 120, 90), b"no image"]
    records = [{**key, "content": content} for key, content in zip(keys(4), contents, strict=True)]
    hashes = [0, 0xFFFF, 0xFFFF_0000, 0xFFFF_0000_0000]
    car = make_collection("car", [{"key": "crop", "content": contents[1]}])
    people = make_collection("people", records)
    add_scores(car, [{"phash": -1, "embedding": [1.0]}])
    add_scores(people, [{"phash": phash, "embedding": [1.0]} for phash in hashes])
    similar = ChooseConfig(near_duplicates=NearDuplicates.SIMILAR)

    choose([Source(people, TRUTH)], similar)
    assert verdicts(people) == [
        (Choice.KEPT, None),
        (Choice.NEAR_DUPLICATE, "repeats people/k00, which is larger: 120 × 90, not 96 × 72"),
        (Choice.KEPT, None),
        (Choice.KEPT, None),
    ]
    choose([Source(car, TRAINING), Source(people, TRUTH)], similar)
    assert [choice for choice, _ in verdicts(people)] == [Choice.NEAR_DUPLICATE, Choice.DUPLICATE] + [Choice.KEPT] * 2
    choose([Source(people, TRUTH)], ChooseConfig())
    assert [choice for choice, _ in verdicts(people)] == [Choice.KEPT] * 4


def test_texts_of_all_images_may_pass_two_gigabytes_together(make_collection: Make) -> None:
    """Which pyarrow's strings of 32-bit offsets may not, above 33.5 million keys of 64 characters."""
    people = make_collection("people", keys(2))
    images = read_images([Source(people, TRUTH)])
    assert pa.string() not in images.table.schema.types


def test_an_embedding_that_is_not_finite_is_like_no_other(make_collection: Make) -> None:
    vectors = [[1.0, 0.0], [float("nan"), 0.0], [float("inf"), 1.0]]
    people = add_scores(make_collection("people", keys(3)), [{"phash": 1, "embedding": vector} for vector in vectors])
    images = read_images([Source(people, TRUTH)])
    assert images.embeddings(np.arange(3)).tolist() == [[1, 0], [0, 0], [0, 0]]
    choose([Source(people, TRUTH)], ChooseConfig())
    assert [choice for choice, _ in verdicts(people)] == [Choice.KEPT] * 3


def test_a_fault_is_met_once_and_not_once_a_part(make_collection: Make) -> None:
    people = add_scores(
        make_collection("people", [{**SAME, **key, "sha256": None} for key in keys(6)], part_rows=2), []
    )
    wide = add_scores(make_collection("wide", keys(2, first=6)), [{"phash": 1, "embedding": [1.0] * 4}] * 2)
    add_scores(people, [{"phash": 1, "embedding": [1.0] * 8}] * 6)
    with pytest.raises(ValueError, match="shape"):
        choose([Source(people, TRUTH), Source(wide, TRUTH)], ChooseConfig())


def test_near_copies_agree_in_hash_and_embedding(make_collection: Make) -> None:
    def scores(*pairs: tuple[int, list[float]]) -> list[dict[str, Any]]:
        return [{"phash": phash, "embedding": vector} for phash, vector in pairs]

    one, other = [1.0, 0.0], [0.0, 1.0]
    car = add_scores(make_collection("car", keys(1)), scores((0b1111, one)))
    people = add_scores(
        make_collection("people", keys(4), part_rows=2),
        scores((0b0000, one), (0b1111, other), (0b1111 | 0b11111 << 40, one), (-1, one)),
    )
    sources = [Source(car, TRAINING), Source(people, TRUTH)]
    choose(sources, ChooseConfig())
    assert (
        verdicts(people)
        == [(Choice.NEAR_DUPLICATE, "repeats car/k00, which is of training")] + [(Choice.KEPT, None)] * 3
    )
    choose(sources, ChooseConfig(near_duplicates=NearDuplicates.OFF))
    assert [choice for choice, _ in verdicts(people)] == [Choice.KEPT] * 4


@pytest.mark.parametrize("score", ["aesthetic", "similarity"])
def test_a_score_at_its_limit_is_high_enough(make_collection: Make, score: str) -> None:
    """Scores have single precision, in which 0.28 is another number than in double."""
    people = add_scores(make_collection("people", keys(2)), [{score: 0.28}, {score: 0.2799}])
    choose([Source(people, TRUTH)], ChooseConfig.model_validate({f"min_{score}": 0.28}))
    assert [choice for choice, _ in verdicts(people)] == [Choice.KEPT, f"low_{score}"]


def test_an_image_that_fails_a_rule_takes_no_copy_with_it(make_collection: Make) -> None:
    scores = [{"phash": 1, "embedding": [1.0], "similarity": s} for s in (0.1, 0.3)]
    people = add_scores(make_collection("people", keys(2)), scores)
    choose([Source(people, TRUTH)], ChooseConfig(min_similarity=0.2))
    assert [choice for choice, _ in verdicts(people)] == [Choice.LOW_SIMILARITY, Choice.KEPT]


def test_it_works_without_scores_and_says_what_needs_them(make_collection: Make) -> None:
    people = make_collection("people", [*keys(2), {"key": "gone", "status": Status.HTTP_404}])
    sources = [Source(people, TRUTH)]
    assert choose(sources, ChooseConfig()).rows == 2
    for name in ("min_aesthetic", "min_similarity"):
        with pytest.raises(UserError, match=f"{name} needs scores"):
            choose(sources, ChooseConfig.model_validate({name: 0.5}))


def test_scores_without_a_head_have_no_aesthetic(make_collection: Make) -> None:
    people = add_scores(make_collection("people", keys(1)), [], aesthetic_head=None)
    with pytest.raises(UserError, match="scored without a head"):
        choose([Source(people, TRUTH)], ChooseConfig(min_aesthetic=5))


def test_scores_of_older_records_are_refused(make_collection: Make) -> None:
    people = add_scores(make_collection("people", keys(2)), [])
    for newer in (keys(3), keys(2, first=1)):
        make_collection("people", newer)
        with pytest.raises(UserError, match="run score again"):
            choose([Source(people, TRUTH)], ChooseConfig())


def test_scores_of_two_models_are_not_compared(make_collection: Make) -> None:
    people = add_scores(make_collection("people", keys(1)), [])
    faces = add_scores(make_collection("faces", keys(1, first=1)), [], model="ViT-B-32")
    sources = [Source(people, TRUTH), Source(faces, TRUTH)]
    with pytest.raises(UserError, match="different CLIP models"):
        choose(sources, ChooseConfig())
    choose(sources, ChooseConfig(near_duplicates=NearDuplicates.OFF))


def test_an_image_that_was_not_scored_has_no_choice(make_collection: Make) -> None:
    people = add_scores(make_collection("people", keys(3)), [{}, None, {}])
    choose([Source(people, TRUTH)], ChooseConfig())
    assert people.read(Table.CHOICES)["key"].to_pylist() == ["k00", "k02"]


def test_choices_have_the_parts_and_order_of_the_records(make_collection: Make) -> None:
    records = [{"key": key} for key in ("d", "b", "a", "e", "c")]
    people = make_collection("people", records, part_rows=2)
    choose([Source(people, TRUTH)], ChooseConfig())
    assert [people.read(Table.CHOICES, part)["key"].to_pylist() for part in people.parts(Table.CHOICES)] == [
        ["d", "b"],
        ["a", "e"],
        ["c"],
    ]


def test_only_what_a_choice_hangs_on_makes_it_stale(make_collection: Make) -> None:
    car, people = make_collection("car", keys(2)), make_collection("people", keys(2, first=2))
    faces = make_collection("faces", keys(2, first=4))
    sources, config = [Source(car, TRAINING), Source(people, TRUTH)], ChooseConfig()
    assert choose(sources, config).parts_done == 2
    assert is_current(sources, config)
    assert choose(sources, config).parts_before == 2
    shared = [Source(car, TRAINING, multiply=3), Source(people, TRUTH, share=2)]
    assert is_current(shared, config)
    other = ChooseConfig(exclude_licences=["by-nc"])
    assert not is_current(sources, other)
    assert choose(sources, other).parts_done == 1
    assert choose([*sources, Source(faces, TRUTH)], other).parts_done == 2  # its images may be better than people's
    make_collection("car", keys(1))
    assert choose([*sources, Source(faces, TRUTH)], other).parts_done == 3


def test_two_sources_of_one_name_are_refused(make_collection: Make) -> None:
    people = make_collection("people", keys(1))
    with pytest.raises(UserError, match="Two sources are called people"):
        choose([Source(people, TRUTH), Source(people, TRAINING)], ChooseConfig())


@pytest.mark.slow
def test_a_run_killed_anywhere_is_finished_by_the_next(make_collection: Make, tmp_path: Path, crash: Any) -> None:
    def sources() -> list[Source]:
        car = make_collection("car", [{"key": f"c{i}", "sha256": f"{i % 3}"} for i in range(4)], part_rows=2)
        return [Source(car, TRAINING), Source(make_collection("people", keys(4), part_rows=2), TRUTH)]

    choose(sources(), ChooseConfig())
    expected = [source.collection.read(Table.CHOICES) for source in sources()]
    script = f"""
from pathlib import Path
from dreamloom.curate.choose import choose
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.source import Role, Source
from dreamloom.scrape.collection import Collection
root = Path({str(tmp_path / "collections")!r})
choose([Source(Collection(root / "car"), Role.TRAINING), Source(Collection(root / "people"), Role.GROUND_TRUTH)],
       ChooseConfig())
"""
    left = set()
    for at in (2, 14, 20, 24):
        for source in sources():
            source.collection.remove_parts(Table.CHOICES, keep=[])
        assert crash.run(script, at=at)
        left.add(sum(len(source.collection.parts(Table.CHOICES)) for source in sources()))
        choose(sources(), ChooseConfig())
        assert all(s.collection.read(Table.CHOICES).equals(e) for s, e in zip(sources(), expected, strict=True))
    assert len(left) > 2


def test_what_training_would_leave_out_as_too_small_is_dropped_for_both_roles(make_collection: Make) -> None:
    sizes = [(512, 512), (128, 128), (127, 128), (100, 400), (60, 300)]
    records = [row | {"width": w, "height": h} for row, (w, h) in zip(keys(5), sizes, strict=True)]
    own, people = make_collection("own", records), make_collection("people", records)
    choose([Source(own, TRAINING), Source(people, TRUTH)], ChooseConfig(resolution=512))
    small = [find_bucket(size, 512, 64, upscale=True) is None for size in sizes]
    assert small == [False, False, True, False, True]
    dropped = [choice == "too_small" for choice, _ in verdicts(own)]
    assert dropped == small and verdicts(own)[2] == ("too_small", "127 × 128")
    assert own.summary(Table.CHOICES).dropped["too_small"] == 2


def test_a_source_with_a_resolution_of_its_own_is_judged_by_that(make_collection: Make) -> None:
    records = [row | {"width": side, "height": side} for row, side in zip(keys(3), (512, 200, 100), strict=True)]
    own, people = make_collection("own", records), make_collection("people", records)
    sources = [Source(own, TRAINING), Source(people, TRUTH)]
    choose(sources, ChooseConfig(resolution=512))
    choose(sources, plain := ChooseConfig(resolution=512, folder_resolutions=["people=1024", "own=256"]))
    small = [[choice == "too_small" for choice, _ in verdicts(collection)] for collection in (own, people)]
    assert small == [[False, False, False], [False, True, True]]
    assert is_current(sources, plain) and not is_current(sources, ChooseConfig(resolution=512))


def test_a_source_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs a collection, not 'people'; write Collection\(FOLDER\)"):
        Source("people", Role.TRAINING)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="There is no role learned; a source has one of training, ground_truth"):
        Source(Collection(tmp_path), "learned")  # type: ignore[arg-type]
