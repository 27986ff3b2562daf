"""Text on images: every script is written, or told by number; never as boxes."""

import shutil
from pathlib import Path

import pytest

from dreamloom.base import fonts


def test_without_a_font_for_them_letters_are_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts._cjk_font.cache_clear()
    monkeypatch.setattr(fonts, "_CJK_FOLDERS", ())
    try:
        assert fonts.drawable("a 猫, é and Ω") == "a \\u732b , é and Ω"
        assert fonts.load_font(12, "猫").getname()[0] == "DejaVu Sans"
    finally:
        fonts._cjk_font.cache_clear()


def test_with_one_they_are_written_by_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copy(str(fonts.load_font(12).path), tmp_path / "NotoSansCJK-Regular.ttc")
    fonts._cjk_font.cache_clear()
    monkeypatch.setattr(fonts, "_CJK_FOLDERS", (str(tmp_path),))
    try:
        assert fonts.drawable("a 猫") == "a 猫"
        assert str(fonts.load_font(12, "猫").path).startswith(str(tmp_path))
        assert "matplotlib" in str(fonts.load_font(12, "a cat").path)
    finally:
        fonts._cjk_font.cache_clear()
