"""Reads a robots.txt (RFC 9309) and judges paths by it, in time linear in the sizes of both, whatever they hold.

Regular expressions, as robots.txt parsers make them of wildcards, take exponential time for some patterns.
"""

import math
import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

_LINE_ENDS = re.compile(r"[\r\n]+")
_PRODUCT = re.compile(r"\*(?!\S)|[a-z_-]+", re.IGNORECASE)
_ESCAPE = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_QUOTE_SAFE = "".join(chr(code) for code in range(0x21, 0x7F))
_NAMES = {
    **dict.fromkeys(("user-agent", "useragent", "user agent"), "user-agent"),
    **dict.fromkeys(("disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw"), "disallow"),
    "allow": "allow",
    "crawl-delay": "crawl-delay",
    **dict.fromkeys(("content-signal", "content-usage"), "preference"),
}
"""Name of a line → its meaning; the misspellings are those that Google's parser accepts."""


class _Rule(NamedTuple):
    pattern: str
    """As in the file, in the form of `_normalized`."""
    is_allowed: bool
    prefix: str
    """The text before the first wildcard."""
    rest: tuple[str, ...]
    """The texts between and after the wildcards."""
    is_anchored: bool
    """Whether the pattern ends where the path ends."""

    def matches(self, path: str) -> bool:
        if not path.startswith(self.prefix):
            return False
        if not self.rest:
            return not self.is_anchored or path == self.prefix
        place = len(self.prefix)
        for text in self.rest[:-1]:
            if (found := path.find(text, place)) < 0:
                return False
            place = found + len(text)
        last = self.rest[-1]
        if self.is_anchored:
            return path.endswith(last) and len(path) - len(last) >= place
        return path.find(last, place) >= 0


@dataclass(frozen=True)
class RobotsFile:
    """What a robots.txt says to one robot."""

    rules: tuple[_Rule, ...]
    """In the order in which they decide: the longest pattern first; of equal ones, that which allows."""
    preferences: tuple[_Rule, ...]
    """The same for training on what is there; of equal patterns, first that which refuses."""
    crawl_delay_s: float
    """Seconds between two requests; 0 where the file does not say."""

    def allows(self, path: str) -> bool:
        """Whether a path, with its query, may be requested."""
        return _decide(self.rules, path)

    def allows_training(self, path: str) -> bool:
        """Whether what a path leads to may be trained on, as far as the file says."""
        return _decide(self.preferences, path)


def _decide(rules: tuple[_Rule, ...], path: str) -> bool:
    if not rules:
        return True
    normalized = _resolve_dots(_normalized(path).replace("*", "%2A").replace("$", "%24"))
    return next((rule.is_allowed for rule in rules if rule.matches(normalized)), True)


def parse_robots(text: str, robot: str) -> RobotsFile:
    """Parses the text of a robots.txt: the groups that name the robot, or else those for all."""
    groups: dict[str, list[tuple[str, str]]] = {}  # of "*" and the robot: its lines
    addressed: set[str] = set()  # those that the current group is for
    is_open = False  # whether a further User-agent belongs to the same group
    for line in _LINE_ENDS.split(text):
        name, value = _split_line(line)
        if name == "user-agent":
            addressed = addressed if is_open else set()
            is_open = True
            product = _PRODUCT.match(value)
            if product and product[0].lower() in ("*", robot.lower()):
                addressed.add(product[0].lower())
                groups.setdefault(product[0].lower(), [])
        elif name:
            is_open = False
            for agent in addressed:
                groups[agent].append((name, value))
    lines = groups.get(robot.lower(), groups.get("*", []))
    rules = {_rule(value, name == "allow") for name, value in lines if name in ("allow", "disallow") and value}
    preferences = {rule for name, value in lines if name == "preference" and (rule := _preference(value))}
    delays = [delay for name, value in lines if name == "crawl-delay" and (delay := _seconds(value))]
    return RobotsFile(
        tuple(sorted(rules, key=lambda rule: (-len(rule.pattern), not rule.is_allowed, rule.pattern))),
        tuple(sorted(preferences, key=lambda rule: (-len(rule.pattern), rule.is_allowed, rule.pattern))),
        max(delays, default=0.0),
    )


def _split_line(line: str) -> tuple[str | None, str]:
    """Splits a line into the meaning of its name, None for one that is not known, and its value."""
    content = line.partition("#")[0].strip()
    name, separator, value = content.partition(":")
    if not separator:
        name, _, value = content.replace("\t", " ").partition(" ")
    return _NAMES.get(name.strip().lower()), value.strip()


def _rule(value: str, is_allowed: bool) -> _Rule:
    pattern = _normalized(value)
    is_anchored = pattern.endswith("$")
    prefix, *rest = pattern.removesuffix("$").replace("$", "%24").split("*")
    return _Rule(pattern, is_allowed, prefix, tuple(rest), is_anchored)


def _preference(value: str) -> _Rule | None:
    """Reads "/a/ search=yes, ai-train=no": whether what is below a path, or everywhere, may be trained on."""
    path, blank, rest = value.partition(" ") if value.startswith("/") else ("/", " ", value)
    said = training_preference(rest if blank else "")
    return None if said is None else _rule(path, said)


def training_preference(value: str) -> bool | None:
    """Returns whether training is allowed by a list of preferences of use; None: they do not say.

    The key is `ai-train` (Content Signals, https://contentsignals.org) or `train-ai` (IETF's AIPREF,
    draft-ietf-aipref-attach). Of several, a refusal counts.
    """
    pairs = [each.partition("=") for each in value.lower().split(",")]
    said = {
        answer.partition(";")[0].strip(' \t"')  # behind it are parameters (RFC 9651, 3.2)
        for key, _, answer in pairs
        if key.strip() in ("ai-train", "train-ai")
    }
    return False if said & {"no", "n"} else True if said & {"yes", "y"} else None


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _normalized(text: str) -> str:
    """Returns a path or pattern in the one form in which RFC 9309, 2.2.2 compares them."""

    def normalize(escape: re.Match[str]) -> str:
        code = int(escape[1], 16)
        return chr(code) if code in _UNRESERVED else escape[0].upper()

    return _ESCAPE.sub(normalize, quote(text, safe=_QUOTE_SAFE, errors="replace"))


def _resolve_dots(path: str) -> str:
    """Resolves "." and ".." of a path: servers do, so /a/../b asks for /b."""
    if "/." not in path:
        return path
    path, separator, query = path.partition("?")
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[max(1, len(kept) - 1) :]
        elif segment != ".":
            kept.append(segment)
    return ("/".join(kept) or "/") + separator + query
