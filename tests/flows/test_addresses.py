"""An address where only a path will do is refused in a sentence, and nothing is made of it."""

from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_text
from dreamloom.base.files.cache_folder import cache_folder
from tests.flows.commands.test_cli import said

S3 = "s3://bucket/x"
REFUSED = {
    "PROJECT": ["run", "plan", "status", "up", "down", "clean", "adopt"],
    "FOLDER": ["init", "runs", "compress", "caption convert --from txt --to txt"],
}
LINES = [
    ("RUN", f"train here {S3}"),
    ("RUN", f"continue {S3} --epochs 2"),
    ("--OUTPUT", f"continue here --epochs 2 --output {S3}"),
    ("MODEL", f"evaluate {S3} --base here --heldout there"),
    ("MODEL", f"sample {S3} --prompts cat"),
    ("--BASE", f"audit here --base {S3} --output there"),
    ("--OUTPUT", f"audit here --base there --output {S3}"),
    ("--BASE", f"train here run --base {S3}"),
    ("--LATENT-CACHE", f"train here run --latent-cache {S3}"),
    ("CHECKPOINT", f"export {S3} model"),
    ("TARGET", f"export run {S3}"),
    ("TARGET", f"dreambooth here {S3}"),
    ("--OUTPUT", f"tune here --output {S3}"),
    ("--OUTPUT", f"show here --output {S3}"),
    ("--PATH", f"ingest folder here --path {S3}"),
    ("--PATH", f"ingest zip here --path {S3}"),
    ("TABLE", f"decisions export here {S3}"),
    ("A", f"compare {S3} there"),
]


@pytest.mark.parametrize(
    ("name", "line"), [(name, f"{command} {S3}") for name, commands in REFUSED.items() for command in commands] + LINES
)
def test_a_command_says_that_it_needs_a_path(
    name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    extra = {"compress": ["--to", "there"]}.get(line.split()[0], [])
    code, out, err = said([*line.split(), *extra], capsys)
    assert code == 2 and out == "" and S3 in err and "is an address, and" in err and err.count("\n") == 1, err
    assert err.upper().startswith(f"{name}: ")
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_from_python_makes_no_folder_named_like_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="s3://bucket/x is an address, and a folder of this machine is needed"):
        commit_text(Path(S3) / "file.txt", "")
    monkeypatch.setenv("DREAMLOOM_CACHE", S3)
    with pytest.raises(UserError, match="DREAMLOOM_CACHE is s3://bucket/x, and a cache lies on this machine"):
        cache_folder()
    assert list(tmp_path.iterdir()) == []
