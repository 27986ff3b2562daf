"""Names that cameras, phones and programs give to files, and that nobody wrote as a caption."""

import re
import unicodedata

_GIVEN = r"""
    (?:(?:copy\ of|kopie\ von|copie\ de|copi[ae]\ d[ei]|cópia\ de|kopia|kopi\ a[fv]|копия|kopie\ van)\ )?
    (?:
        (?:img|imag|dsc[fn]?|pxl|mvimg|cimg|gopr|dji|dcim|pict|scan|frame|image|photo|picture|untitled|unnamed|download
          |received|whatsapp\ image|photo\ on|new\ doc(?:ument)?|untitled\ design|new\ project|unbenannt|sans\ titre
          |sin\ título|sem\ título|senza\ titolo|naamloos|без\ имени|bez\ tytułu
          |screen\ ?shot|bildschirmfoto|capture\ d[’'´]?\ ?écran|captura\ de\ (?:pantalla|tela|ecrã)|schermata
          |istantanea\ schermo|schermafbeelding|schermafdruk|skärmavbild|skärmbild|skjermbilde|skærmbillede
          |zrzut\ ekranu|снимок\ экрана|скриншот|ekran\ görüntüsü|ekran\ resmi|näyttökuva|スクリーンショット
          |屏幕截图|螢幕截圖|截屏|截圖|스크린샷)
        [\s\d_().:,#~-]*
        (?:(?:at|um|à|om|kl\.?|alle|a\ las|às|o|в|page|seite|p\.?|página|pagina)[\s\d_().:,#~-]+)?(?:[ap]\.?\ ?m\.?)?
        |(?:p|sam)\d{4,}                  # Olympus and Panasonic; Samsung
        |\d[\d\s_().:-]{2,}               # a number, a date
        |[0-9a-f]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}
    )
    (?:\ ?-?\ ?(?:copy|kopie|copie|copia|cópia|kopia|копия|edited|bearbeitet|modifié|editado)[\s\d()]*)?
"""
_GIVEN_NAME = re.compile(_GIVEN, re.IGNORECASE | re.VERBOSE)


def is_given_name(text: str) -> bool:
    """Tells whether a text is such a name, up to the first underscore or whole: "IMG", "Bildschirmfoto 2024-01-01"."""
    return _GIVEN_NAME.fullmatch(text) is not None


def reads_like_a_caption(text: str) -> bool:
    """Tells whether a file name was written as a caption, and not given by a camera or a program.

    It is a caption if it has two or more words of letters ("a red car", not "IMG", "02", "photo 1" or "a-red-car"), or
    four letters of a script that may be written without spaces, and does not begin like the names that programs give.
    """
    if _GIVEN_BEGINNING.match(text) or is_given_name(text.strip()):
        return False
    words = [w for w in text.split() if any(c.isalpha() for c in w) and not any(c.isdigit() for c in w)]
    return len(words) >= 2 or sum(unicodedata.category(c) == "Lo" for c in text) >= 4


_GIVEN_BEGINNING = re.compile(
    r"(screen ?shot\b|whatsapp image\b|photo on \d|new project\b|untitled design\b)", re.IGNORECASE
)
