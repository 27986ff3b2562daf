"""The grammar of X-Robots-Tag, and what counts as a refusal."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from dreamloom.scrape.collection import Collection
from dreamloom.scrape.web.optout import REFUSALS, directives_for, read_consent


def consent(*headers: tuple[str, str]) -> tuple[bool, str]:
    read = read_consent(CIMultiDictProxy(CIMultiDict(headers)))
    return read.refused, read.statement


@pytest.mark.parametrize(
    "value",
    [
        "noai",
        "NoAI",
        " noimageai ",
        "NOAI, NoImageAI",
        "nofollow, noindex",
        "noimageindex",
        "none",
        "all, none",
        "dreamloom: noai",
        "DreamLoom:noai",
        "*: noindex",
        "otherbot: nofollow, dreamloom: noai",
        "otherbot: dreamloom: noai",
        "unavailable_after: Sat, 01 Jan 2022 00:00:00 GMT, noai",
        "unavailable_after: 25 Jun 2010 15:00:00 PST, noindex",
        "unavailable_after: 2022-01-01T00:00:00Z, noai",
        "unavailable_after: Sat, 01 Jan 2022 00:00:00 GMT",
        "unavailable_after: Saturday, 01-Jan-22 00:00:00 GMT",
        "unavailable_after: 25 Jun 2010 15:00:00 PST",
        "dreamloom: Unavailable_After:2022-01-01, nofollow",
        "noai, unavailable_after: Sat, 01 Jan 2022 00:00:00 GMT",
        "max-snippet: 20, max-image-preview: large, noai",
        ",, noai ,",
    ],
)
def test_an_owner_who_says_no(value: str) -> None:
    assert consent(("X-Robots-Tag", value)) == (True, f"x-robots-tag: {value.strip()}")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "all",
        "index, follow",
        "nofollow",
        "noarchive, nosnippet",
        "max-image-preview: none",
        "max-snippet: 0",
        "otherbot: noai",
        "otherbot: nofollow, noai",
        "googlebot-image: noindex, max-image-preview: none, noimageindex",
        "unavailable_after: Sat, 01 Jan 2222 00:00:00 GMT",
        "unavailable_after: 2222-01-01T00:00:00Z",
        "unavailable_after: Fri, 31 Dec 9999 23:59:59 -2300",
        "unavailable_after: some day, nofollow",
        "unavailable_after",
        "otherbot: unavailable_after: Sat, 01 Jan 2022 00:00:00 GMT",
        "noai-not-really",
        "notnone",
        "dreamloom: index",
    ],
)
def test_an_owner_who_does_not(value: str) -> None:
    assert not consent(("X-Robots-Tag", value))[0]


def test_every_header_counts_and_a_name_ends_with_its_header() -> None:
    assert consent(("X-Robots-Tag", "otherbot: noindex"), ("x-robots-tag", "noai"))[0]
    assert consent(("X-Robots-Tag", "index"), ("X-ROBOTS-TAG", "dreamloom: none"))[0]
    assert not consent(("X-Robots-Tag", "otherbot: noindex"), ("X-Robots-Tag", "otherbot: noai"))[0]


@pytest.mark.parametrize(("value", "refused"), [("1", True), (" 1 ", True), ("0", False), ("", False), ("yes", False)])
def test_tdm_reservation(value: str, refused: bool) -> None:
    assert consent(("TDM-Reservation", value))[0] == refused


def test_what_was_said_is_recorded() -> None:
    assert consent() == (False, "nothing said")
    read = consent(("X-Robots-Tag", "max-image-preview: large"), ("TDM-Reservation", "0"))
    assert read == (False, "x-robots-tag: max-image-preview: large; tdm-reservation: 0")
    assert consent(("X-Robots-Tag", "a\udce4\x00b" + "c" * 999))[1].startswith("x-robots-tag: a  bccc")
    assert len(consent(("X-Robots-Tag", "c" * 999))[1]) == 300


@pytest.mark.parametrize("text", ["'a:' * 400_000", "'a:,' * 300_000", "'unavailable_after: 1 Jan 2222,' * 30_000"])
def test_a_header_of_800_kb_takes_no_time_of_the_others(text: str) -> None:
    code = f"from dreamloom.scrape.web.optout import directives_for; print(len(directives_for('dreamloom', {text})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert int(done.stdout) <= 1, done.stderr


def test_who_has_more_to_say_than_is_read_has_refused() -> None:
    """Sixteen kilobytes of headers about use: what stands behind them may be a refusal."""
    assert not consent(*[("X-Robots-Tag", "otherbot: noai")] * 400)[0]
    refused, said = consent(*[("X-Robots-Tag", "otherbot: noai")] * 4000)
    assert refused
    assert said.startswith("too long to be read: x-robots-tag: otherbot: noai; ")


def test_a_body_full_of_beginnings_is_read_once() -> None:
    """A pattern that looked behind each beginning anew took a minute and a half for it, and let nothing else run."""
    code = (
        "from dreamloom.base.images.metadata import find_refusal\n"
        "print(find_refusal(b'c2pa.training-mining' * 1_600_000))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "None\n"


DIRECTIVES = st.sampled_from(["noai", "noindex", "none", "index", "nofollow", "max-snippet: 3"])
ROBOTS = st.sampled_from(["*", "dreamloom", "otherbot", "GPTBot"])


@given(st.lists(st.tuples(ROBOTS, st.lists(DIRECTIVES, min_size=1, max_size=3)), max_size=3))
def test_directives_are_for_the_robot_before_them(groups: list[tuple[str, list[str]]]) -> None:
    header = ", ".join(f"{robot}: {', '.join(directives)}" for robot, directives in groups)
    ours = {d.split(":")[0] for robot, directives in groups for d in directives if robot in ("*", "dreamloom")}
    assert directives_for("dreamloom", header) == ours
    assert consent(("X-Robots-Tag", header))[0] == bool(ours & REFUSALS)


@pytest.mark.parametrize(
    "header",
    [
        *("noindex; noai", "noindex nofollow", '"noai"', "dreamloom/0.2: noai", "all;dreamloom : none"),
        "unavailable_after: 1 Jan 2020 00:00:00 GMT; all",
    ],
)
def test_refusals_with_other_separators_are_understood(header: str) -> None:
    assert consent(("X-Robots-Tag", header))[0]


@pytest.mark.parametrize(
    ("value", "refused"), [("1, 1", True), ("0, 1", True), ('"1"', True), ("0", False), ("10", False)]
)
def test_rights_that_a_proxy_joined_are_reserved(value: str, refused: bool) -> None:
    assert consent(("TDM-Reservation", value))[0] is refused


def test_what_a_redirect_says_is_recorded_also_where_it_is_not_obeyed(site: Any, collection: Collection) -> None:
    url = site.put("/a", b"", 302, {"Location": "/b", "X-Robots-Tag": "noai"})
    site.put("/b", site.image(1))
    (row,) = site.scraped(collection, [url], respect_optout=False)
    assert (row["status"], row["consent"]) == ("ok", "x-robots-tag: noai")


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        (["train-ai=n"], True),
        (["search=y, train-ai=n"], True),
        (["search=n", "train-ai=n"], True),
        (["train-ai=n;exact, search=y"], True),
        (["Train-AI= n "], True),
        (["train-ai=y"], False),
        (["search=n"], False),
    ],
)
def test_content_usage(values: list[str], refused: bool) -> None:
    found = consent(*(("Content-Usage", value) for value in values))
    assert found == (refused, "; ".join(f"content-usage: {value.strip()}" for value in values))
