"""What an image says about itself beside its pixels: refusals of training, and where and with what it was taken.

Places and serial numbers are overwritten in place, byte for byte, so that pixels, colors and all other metadata stay
as they are.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from dreamloom.base.images.jpeg import segments

# Refusals

_IPTC = re.compile(rb"DMI-PROHIBITED[A-Z-]*")
_C2PA = b".training-mining"
_C2PA_ENTRY = re.compile(
    rb"c(?:2pa|awg)\.(?:ai_generative_training|ai_training|data_mining).{0,24}?(?:notAllowed|constrained)", re.DOTALL
)
_C2PA_BYTES = 2048
"""Maximum distance of an entry from the name of its assertion."""


def find_refusal(body: bytes) -> str | None:
    """Finds a refusal of training in an image's own metadata.

    IPTC's plus:DataMining (Photo Metadata Standard 2023.1), and the training and data mining assertion of C2PA 1.3 and
    CAWG. Signatures are not checked: a refusal need not be signed to be respected.

    Returns:
        The refusal, for the records; None where there is none.
    """
    for text in (body, *_wide_texts(body), *(text for _, text in _compressed_texts(body))):
        if b"DMI-PROHIBITED" in text and (match := _IPTC.search(text)):
            return f"iptc: {match[0].decode('ascii')}"
    entries = _C2PA_ENTRY.finditer(body) if _C2PA in body else ()
    if any(body.rfind(_C2PA, max(0, entry.start() - _C2PA_BYTES), entry.start()) >= 0 for entry in entries):
        return "c2pa: no training"
    return None


def _wide_texts(body: bytes) -> Iterator[bytes]:
    """Yields the ASCII of XMP in UTF-16, around a refusal."""
    place = body.find("DMI-PROHIBITED".encode("utf-16-le")[:-1])
    if place >= 0:
        yield body[place : place + 200 : 2]


_DMI = "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"


def refusal_xmp(refusal: str) -> bytes:
    """Returns an XMP packet that states a refusal, in plus:DataMining, for an image that is encoded anew.

    Args:
        refusal: as `find_refusal` returns it.
    """
    kind = refusal.partition("DMI-PROHIBITED")[2] if "DMI-PROHIBITED" in refusal else "-AIMLTRAINING"
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" plus:DataMining="{_DMI}{kind}"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode("ascii")


# Places and serial numbers

_GPS, _EXIF_IFD, _MAKER_NOTE = 0x8825, 0x8769, 0x927C
_SERIALS = {0xA431, 0xA435, 0xC62F, 0xA420, _MAKER_NOTE}
"""EXIF 3.0's BodySerialNumber and LensSerialNumber, DNG's CameraSerialNumber, ImageUniqueID, by which a camera's
images can be told, and the maker's own notes, which hold serial numbers, too."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
"""Type of an EXIF value → its bytes."""
_MAX_ENTRIES = 1000

_XMP_NAME = rb"(?:exif:GPS\w*|exifEX:(?:Body|Lens)SerialNumber|aux:(?:Lens)?SerialNumber|exif:ImageUniqueID)"
_XMP = re.compile(
    rb"(?P<name>\b" + _XMP_NAME + rb")(?:\s*=\s*(?P<quote>[\"'])(?P<attribute>.{0,400}?)(?P=quote)"
    rb"|>(?P<element>[^<]{0,400})<)",
    re.DOTALL,
)
"""A place or serial number in XMP, as an attribute or an element."""


def without_private_metadata(data: bytes) -> bytes:
    """Returns a JPEG, PNG or WebP without GPS positions and serial numbers in its EXIF and XMP.

    Args:
        data: the whole file.

    Returns:
        The same object where there is none; else bytes of the same length, but for PNG texts that hold all of EXIF,
        and the video of a phone's motion photo, which says where it was taken, too.
    """
    if data[:2] == b"\xff\xd8":
        behind = _end_of_picture(data)
        return _patched(data[: _video_of(data, behind)], _jpeg_blocks(data, behind))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _patched(data, _webp_blocks(data))
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _clean_png(data)
    return data


def _patched(data: bytes, blocks: Iterator[tuple[int, int]]) -> bytes:
    """Overwrites what is private in blocks of metadata, each from a first byte up to an end."""
    changed: bytearray | None = None
    for start, end in blocks:
        block = data[start:end]
        clean = _clean_block(block)
        if clean != block:
            changed = bytearray(data) if changed is None else changed
            changed[start:end] = clean
    return data if changed is None else bytes(changed)


def _clean_block(block: bytes) -> bytes:
    start = 6 if block.startswith(b"Exif\0\0") else 0
    if block[start : start + 4] in (b"II*\0", b"MM\0*"):
        return block[:start] + _clean_exif(block[start:])
    return _XMP.sub(_blank, block) if b"GPS" in block or b"SerialNumber" in block or b"UniqueID" in block else block


def _blank(match: "re.Match[bytes]") -> bytes:
    group = "attribute" if match["attribute"] is not None else "element"
    start, end = (place - match.start() for place in match.span(group))
    return match[0][:start] + b" " * (end - start) + match[0][end:]


def _clean_exif(tiff: bytes) -> bytes:
    """Zeroes the values of private tags in an EXIF block; what points outside it is left alone."""
    order = "<" if tiff[:2] == b"II" else ">"
    clean = bytearray(tiff)
    seen: set[int] = set()
    waiting = [(struct.unpack_from(f"{order}I", tiff, 4)[0], False)] if len(tiff) >= 8 else []
    while waiting:
        offset, is_private = waiting.pop()
        if offset in seen or offset + 2 > len(tiff):
            continue
        seen.add(offset)
        count = min(struct.unpack_from(f"{order}H", tiff, offset)[0], _MAX_ENTRIES)
        for place in range(offset + 2, min(offset + 2 + 12 * count, len(tiff) - 11), 12):
            tag, kind, number, value = struct.unpack_from(f"{order}HHII", tiff, place)
            if tag in (_GPS, _EXIF_IFD):
                waiting.append((value, tag == _GPS))
            elif is_private or tag in _SERIALS:
                size = _SIZES.get(kind, 1) * number
                start = place + 8 if size <= 4 else value
                end = min(start + max(size, 4 if size <= 4 else 0), len(tiff))
                clean[start:end] = bytes(max(0, end - start))
        following = offset + 2 + 12 * count
        if following + 4 <= len(tiff) and not is_private:
            waiting.append((struct.unpack_from(f"{order}I", tiff, following)[0], False))
    return bytes(clean)


def _jpeg_blocks(data: bytes, behind: int) -> Iterator[tuple[int, int]]:
    """The APP1 segments of a JPEG, without their headers: EXIF and XMP; also of what lies behind the picture."""
    for code, start, end in segments(data):
        if code == 0xE1:
            yield start, min(end, len(data))
    yield from _blocks_behind(data, behind)


_PICTURE_END = b"\xff\xd9"
_BLOCK = re.compile(rb"\xff\xe1(..)(?:Exif\0\0|http://ns\.adobe\.com/)", re.DOTALL)


def _blocks_behind(data: bytes, behind: int) -> Iterator[tuple[int, int]]:
    """The EXIF and XMP of further pictures behind the first: of a preview, a gain map, or a picture in 3D."""
    for match in _BLOCK.finditer(data, behind):
        yield match.start() + 4, min(match.start() + 2 + int.from_bytes(match[1]), len(data))


def _end_of_picture(data: bytes) -> int:
    """Returns where a JPEG ends, and what may follow it begins."""
    scan = max((end for _, _, end in segments(data)), default=0)
    end = data.find(_PICTURE_END, scan)
    return len(data) if end < 0 else end + 2


def _video_of(data: bytes, behind: int) -> int | None:
    """Returns where the video behind a JPEG begins: its first box is ftyp (ISO 14496-12, 4.3); None: there is none."""
    start = data.find(b"ftyp", behind) - 4
    return start if start >= behind and 16 <= int.from_bytes(data[start : start + 4]) <= 256 else None


def _webp_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    offset = 12
    while offset + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, offset + 4)
        if data[offset : offset + 4] in (b"EXIF", b"XMP "):
            yield offset + 8, min(offset + 8 + size, len(data))
        offset += 8 + size + size % 2


def _clean_png(data: bytes) -> bytes:
    """A PNG's chunks have check sums, and may hold EXIF as compressed text, which is taken out as a whole."""
    parts, start, offset = [], 0, 8
    packed_texts = dict(_compressed_texts(data))
    while offset + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, offset)
        kind, end = data[offset + 4 : offset + 8], offset + 12 + size
        if end > len(data):
            break
        content = data[offset + 8 : end - 4]
        if kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            clean = None if content.startswith(_RAW_PROFILES) else _clean_block(content)
            text = packed_texts.get(offset, b"")
            if clean is not None and (clean_text := _clean_block(text)) != text:
                clean = content.removesuffix(_packed_text(kind, content)) + zlib.compress(clean_text)
            if clean is None or clean != content:
                parts.append(data[start:offset])
                if clean is not None:
                    checksum = struct.pack(">I", zlib.crc32(kind + clean))
                    parts.append(struct.pack(">I", len(clean)) + kind + clean + checksum)
                start = end
        offset = end
    return b"".join([*parts, data[start:]]) if parts else data


def _compressed_texts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the texts of a PNG that are compressed, by the place of their chunk; longer ones are cut."""
    offset, left = 8, _MAX_TEXT_BYTES
    while data[:8] == b"\x89PNG\r\n\x1a\n" and offset + 12 <= len(data) and left > 0:
        (size,) = struct.unpack_from(">I", data, offset)
        content = data[offset + 8 : offset + 8 + size]
        if packed := _packed_text(data[offset + 4 : offset + 8], content):
            try:
                text = zlib.decompressobj().decompress(packed, left)
            except zlib.error:
                text = b""
            left -= len(text)
            yield offset, text
        offset += 12 + size


_MAX_TEXT_BYTES = 2**22
"""Maximum bytes of all texts of a PNG that are unpacked."""


def _packed_text(kind: bytes, content: bytes) -> bytes:
    """Returns the compressed part of an iTXt or zTXt chunk (PNG 3, 11.3.3); empty: nothing is compressed."""
    rest = content.partition(b"\0")[2]
    if kind == b"zTXt":
        return rest[1:]
    if kind == b"iTXt" and rest[:1] == b"\1":
        return rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return b""


_RAW_PROFILES = (b"Raw profile type exif", b"Raw profile type APP1", b"Raw profile type xmp")
"""Keywords under which ImageMagick and ExifTool write EXIF and XMP into texts of a PNG."""
