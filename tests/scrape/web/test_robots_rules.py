"""Paths are judged as RFC 9309 says, by one reading of the file and of the path, whatever patterns it holds."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego

from dreamloom.scrape.web.robots_rules import parse_robots


def allows(rules: str, path: str) -> bool:
    return parse_robots(f"User-agent: *\n{rules}", "dreamloom").allows(path)


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("Disallow: /a", "/ab", False),
        ("Disallow: /a\nAllow: /a", "/a", True),
        ("Disallow: /a*\nAllow: /a", "/ab", False),
        ("Disallow: /*.jpg$", "/x/y.jpg", False),
        ("Disallow: /*.jpg$", "/x/y.jpg?a", True),
        ("Disallow: /a*b*c", "/a1c2b3c", False),
        ("Disallow: /a*b*c", "/a1c2b3", True),
        ("Disallow: /ab*ba$", "/aba", True),
        ("Disallow: *a$b", "/xa$b", False),
        ("Disallow: /x%2A$", "/x*", False),
        ("Disallow: /~joe", "/%7Ejoe/1.jpg", False),
        ("Disallow: /%7ejoe", "/~joe/1.jpg", False),
        ("Disallow: /a%2fb", "/a%2Fb", False),
        ("Disallow: /a%2fb", "/a/b", True),
        ("Disallow: /ä", "/%C3%A4/1", False),
        ("Disallow: /no/", "/yes/../no/1", False),
        ("Disallow: /no/", "/yes/%2e%2E/./no/1", False),
        ("Disallow:", "/a", True),
        ("disallow /a", "/a", False),
        ("disallow\t/a", "/a", False),
        ("Disallow: /a\nUser-agent: *bot\nDisallow: /b", "/b", True),
        ("Disalow: /a # not yet", "/a", False),
        ("\nUser-agent: DreamLoom/2.0\nDisallow: /b", "/a", True),
        ("Disallow: /a\rUser-agent: dreamloom\rUser-agent: x\rDisallow: /b", "/b", False),
        ("Disallow: /\nUser-agent: dreamloombot\nDisallow: /b", "/b", False),
    ],
)
def test_judgements(rules: str, path: str, allowed: bool) -> None:
    assert allows(rules, path) == allowed


@pytest.mark.parametrize(
    ("said", "seconds"), [("2", 2.0), ("0.5", 0.5), ("-3", 0.0), ("nan", 0.0), ("1e999", 0.0), ("soon", 0.0)]
)
def test_delays(said: str, seconds: float) -> None:
    assert parse_robots(f"User-agent: *\nCrawl-delay: {said}", "dreamloom").crawl_delay_s == seconds


def test_of_several_delays_the_longest_counts() -> None:
    text = "User-agent: *\nCrawl-delay: 2\nCrawl-delay: 5\nUser-agent: *\nCrawl-delay: 3"
    assert parse_robots(text, "dreamloom").crawl_delay_s == 5.0


NAMES = st.sampled_from(["User-agent: *", "User-agent: dreamloom", "User-agent: other"])
PATTERNS = st.text("ab/*", max_size=6).map(lambda text: "/" + text)
LINES = st.one_of(NAMES, st.builds("{}: {}".format, st.sampled_from(["Allow", "Disallow"]), PATTERNS))


@given(NAMES, st.lists(LINES, max_size=8), st.text("ab/", max_size=8))
def test_it_judges_as_protego_does(first: str, lines: list[str], path: str) -> None:
    text = "\n".join([first, *lines])
    expected = Protego.parse(text).can_fetch(f"http://h.org/{path}", "dreamloom")
    assert parse_robots(text, "dreamloom").allows(f"/{path}") == expected


@pytest.mark.parametrize(
    "text",
    [
        "'Disallow: /' + '*a' * 200_000 + '$'",
        "'\\n'.join(f'Disallow: /{\"*a\" * 8}{n}$' for n in range(20_000))",
        "'User-agent: x\\n' * 20_000 + 'Disallow: /b\\n' * 20_000",
    ],
    ids=["one line", "many lines", "many names"],
)
def test_patterns_that_regular_expressions_never_end_with(text: str) -> None:
    code = f"""
from dreamloom.scrape.web.robots_rules import parse_robots
print(parse_robots('User-agent: *\\n' + {text}, 'dreamloom').allows('/' + 'a' * 5000))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    ("lines", "path", "allowed"),
    [
        ("Content-Signal: search=yes, ai-train=no", "/a", False),
        ("content-signal:search=yes,AI-TRAIN=NO", "/a", False),
        ("Content-Signal: search=yes, ai-input=no", "/a", True),
        ("Content-Signal: ai-train=yes", "/a", True),
        ("Content-Usage: train-ai=n", "/a", False),
        ("Content-Usage: /no/ train-ai=n", "/no/a", False),
        ("Content-Usage: /no/ train-ai=n", "/a", True),
        ("Content-Usage: train-ai=n\nContent-Usage: /yes/*.jpg$ train-ai=y", "/yes/a.jpg", True),
        ("Content-Usage: train-ai=n\nContent-Signal: ai-train=yes", "/a", False),
        ("Content-Usage: /", "/a", True),
        ("Content-Signal: ai-train", "/a", True),
    ],
)
def test_preferences_of_training(lines: str, path: str, allowed: bool) -> None:
    """They say nothing of what may be asked for."""
    robots = parse_robots(f"User-agent: *\n{lines}\nAllow: /", "dreamloom")
    assert robots.allows_training(path) == allowed
    assert robots.allows(path)
    assert parse_robots(f"User-agent: otherbot\n{lines}", "dreamloom").allows_training(path)
