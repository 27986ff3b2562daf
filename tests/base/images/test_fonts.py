"""Text on images: every script is written, or told by number; never as boxes."""

import shutil
from pathlib import Path

import pytest

from dreamloom.base.images import fonts


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
        assert fonts.drawable("a \u4dc0, 猫") == "a \u4dc0, \\u732b ", "the font has a hexagram, and no cat"
        assert str(fonts.load_font(12, "猫").path).startswith(str(tmp_path))
        assert "matplotlib" in str(fonts.load_font(12, "a cat").path)
    finally:
        fonts._cjk_font.cache_clear()


@pytest.mark.parametrize("letter", ["แ", "\u0e34", "न", "\u0940", "🐈", "\ue000"])
def test_letters_that_the_font_lacks_are_no_boxes(letter: str) -> None:
    assert fonts.drawable(f"a {letter}é") == f"a \\u{ord(letter):04x} é"


@pytest.mark.parametrize("text", ["قطة حمراء", "חתול", "Ελληνικά", "кошка", "e\u0301 — “ñ” ☃ 😀", "a\u200db\ufe0f"])
def test_letters_that_the_font_has_are_written(text: str) -> None:
    assert fonts.drawable(text) == text
