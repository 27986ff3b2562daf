"""The members of a shard find their sample, whatever wrote the shard and however it spells their names."""

import io
import tarfile

import pytest

from dreamloom.base.tables.shard_keys import group_samples, list_files


@pytest.mark.parametrize(
    ("names", "samples"),
    [
        (["a.png", "a.txt", "b.png"], {"a": ["png", "txt"], "b": ["png"]}),
        (["x/a.png", "y/a.png"], {"x/a": ["png"], "y/a": ["png"]}),
        (["a.txt", "b.txt", "a.PNG", "b.Json"], {"a": ["txt", "png"], "b": ["txt", "json"]}),
        (["v1.2.png", "v1.2.txt", "v1.3.png"], {"v1.2": ["png", "txt"], "v1.3": ["png"]}),
        (["v1.2.png", "v1.txt"], {"v1.2": ["png", "txt"]}),
        (["v1.2.png", "v1.2.png.txt"], {"v1.2": ["png", "png.txt", "txt"]}),
        (["a.png", "a.seg.png", "a.txt"], {"a": ["png", "seg.png", "txt"]}),
        (["a.jpg", "a.jpg.txt"], {"a": ["jpg", "jpg.txt", "txt"]}),
        (["a.jpg", "a.jpg.json", "a.json"], {"a": ["jpg", "jpg.json", "json"]}),
        (["a.jpeg.jpg", "a.txt"], {"a.jpeg": ["jpg", "txt"]}),
        (["b ..png", "b ..txt"], {"b .": ["png", "txt"]}),
        (["./a.png", "a.txt"], {"./a": ["png", "txt"]}),
        (["\u00e9.txt", "e\u0301.png"], {"e\u0301": ["txt", "png"]}),
        ([".png", "a", "d/.txt"], {}),
    ],
)
def test_members_are_grouped_as_their_names_mean(names: list[str], samples: dict[str, list[str]]) -> None:
    places = {name: (number, 1) for number, name in enumerate(names)}
    grouped = group_samples(places)
    assert {key: list(own) for key, own in grouped.items()} == samples
    if "a.json" in names:  # its own name wins
        assert grouped["a"]["json"] == places["a.json"]


def test_a_link_is_the_member_before_it_and_nothing_outside() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, target in [
            ("d/a.png", tarfile.REGTYPE, ""),
            ("d/hard.png", tarfile.LNKTYPE, "d/a.png"),
            ("d/soft.png", tarfile.SYMTYPE, "./a.png"),
            ("up.png", tarfile.SYMTYPE, "d/../d/hard.png"),
            ("out.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("later.png", tarfile.LNKTYPE, "z.png"),
            ("p.png", tarfile.FIFOTYPE, ""),
            ("z.png", tarfile.REGTYPE, ""),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, target, 5 * (kind == tarfile.REGTYPE)
            tar.addfile(member, io.BytesIO(b"bytes"))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        found = dict(list_files(tar))
    assert list(found) == ["d/a.png", "d/hard.png", "d/soft.png", "up.png", "z.png"]
    assert found["d/a.png"] == found["d/hard.png"] == found["d/soft.png"] == found["up.png"] == (512, 5)
