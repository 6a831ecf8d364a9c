"""Headers of image files that take far longer to read than the files are large."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tfgad.data.image_files import ImageError
from tfgad.data.image_headers import (
    MAX_CHUNKS,
    MAX_NUMBERS,
    MAX_PARTS,
    MAX_RATIONALS,
    MAX_TAGS,
    PNG_START,
    header_excess,
)
from tfgad.data.images import read_levels

SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 3, 4, 5, 7, 16


def picture(form, **options):
    file = io.BytesIO()
    Image.new("L", (16, 16), 9).save(file, form, **options)
    return file.getvalue()


def tiff(entries, data=b"", following=0, big=False):
    """A TIFF of one directory. Its entries are (tag, type, count, value or place)."""
    form, start = ("<HHQQ", "<2sHHHQQ") if big else ("<HHLL", "<2sHLH")
    head = (b"II", 43, 8, 0, 16, len(entries)) if big else (b"II", 42, 8, len(entries))
    body = struct.pack(start, *head) + b"".join(struct.pack(form, *each) for each in entries)
    return body + struct.pack("<Q" if big else "<L", following) + data


def grey(width, height, *entries, **options):
    """A TIFF of grey pixels of 8 bits."""
    size = [(256, LONG, 1, width), (257, LONG, 1, height), (258, SHORT, 1, 8)]
    return tiff([*size, (262, SHORT, 1, 1), (277, SHORT, 1, 1), *entries], **options)


def jpeg(*segments):
    """A JPEG with segments, each a marker and its content, in place of that of JFIF."""
    file = picture("JPEG")
    after = 4 + struct.unpack(">H", file[4:6])[0]
    parts = [bytes([0xFF, mark]) + struct.pack(">H", len(x) + 2) + x for mark, x in segments]
    return file[:2] + b"".join(parts) + file[after:]


def sharing(tags, size):
    """A block in TIFF's format whose tags share the same bytes."""
    block = tiff([(1000 + i, UNDEFINED, size - 8, 8) for i in range(tags)])
    return block + bytes(size - len(block))


def refused(file, reason):
    assert reason in header_excess(io.BytesIO(file))


def test_ordinary_files_pass(tmp_path):
    for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        assert not header_excess(io.BytesIO(picture(form))), form
    exif = Image.Exif()
    exif[0x0112], exif.get_ifd(0x8769)[0x829A], exif.get_ifd(0x8825)[1] = 6, 0.5, "N"
    for form in ("JPEG", "TIFF"):
        info = {"exif": exif, "icc_profile": bytes(2**17)}
        assert not header_excess(io.BytesIO(picture(form, **info))), form
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits", "group4"):
        path = tmp_path / "a.tif"
        image = Image.effect_noise((300, 500), 90).convert("1" if compression == "group4" else "L")
        strips = {TiffImagePlugin.ROWSPERSTRIP: 8} if compression != "jpeg" else {}
        image.save(path, compression=compression, tiffinfo=strips)
        with path.open("rb") as file:
            assert not header_excess(file), compression
            assert file.tell() == 0


def test_a_line_scan_with_a_strip_for_each_row_passes():
    height, data = 2**16, 2**18
    strips = np.full(height, data, "<u4").tobytes() + np.full(height, 4096, "<u4").tobytes()
    entries = [(273, LONG, height, 8), (279, LONG, height, 8 + 4 * height)]
    assert not header_excess(io.BytesIO(grey(4096, height, *entries, data=strips)))


def test_truncated_headers_pass_to_the_reader():
    files = (picture("PNG"), jpeg((0xE1, b"Exif\0\0" + tiff([(1, LONG, 2, 8)]))), picture("TIFF"))
    for file in files:
        for length in range(4, len(file)):
            assert not header_excess(io.BytesIO(file[:length]))
    for place in (2**63, 2**64 - 1):
        assert not header_excess(io.BytesIO(struct.pack("<2sHHHQ", b"II", 43, 8, 0, place)))


def test_only_the_second_page_of_a_tiff_is_looked_for(tmp_path, monkeypatch):
    """Its pages are not counted: each is searched for in the list of the others."""
    path, loads = tmp_path / "a.tif", []
    load = TiffImagePlugin.ImageFileDirectory_v2.load
    monkeypatch.setattr(
        TiffImagePlugin.ImageFileDirectory_v2, "load", lambda *args: loads.append(load(*args))
    )
    Image.new("L", (2, 2)).save(path, save_all=True, append_images=[Image.new("L", (2, 2))] * 30)
    loads.clear()
    with pytest.raises(ImageError, match="holds several pages"):
        read_levels(path)
    assert len(loads) < 5  # of 31


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_many_tags_is_refused(tmp_path, big):
    file = tiff([(1000, SHORT, 1, 1)] * (MAX_TAGS + 1), big=big)
    refused(file, "has more than 4096 tags")
    path = tmp_path / "a.tif"
    path.write_bytes(file)
    with pytest.raises(ImageError, match=r"more than 4096 tags, and would be slow to read"):
        read_levels(path)


def test_tags_that_share_their_bytes_are_refused():
    block = sharing(100, 2000)
    refused(block, "has tags that together are larger than the file")
    refused(struct.pack("<2sHLH", b"II", 42, 8, 9999) + block[10:], "has tags that together")
    for kind in (LONG, 13):  # 13: the place of a directory
        refused(tiff([(0x8769, kind, 1, 26)], data=sharing(100, 2000)[8:]), "together are larger")
    refused(jpeg((0xE1, b"Exif\0\0" + block)), "has tags that together")
    refused(jpeg((0xE2, b"MPF\0" + block)), "has tags that together")
    parts = [(0xE1, b"Exif\0\0" + part) for part in (block[:700], block[700:])]
    refused(jpeg(*parts), "has tags that together")  # Pillow joins them
    refused(jpeg((0xE1, 2 * b"Exif\0\0" + block)), "has tags that together")
    refused(jpeg((0xE1, 5 * b"Exif\0\0" + block)), "more than 4 starts of its Exif block")
    refused(jpeg((0xE1, 4 * b"Exif\0\0" + block)), "has tags that together")


def test_many_numbers_are_refused():
    for kind, most, what in (
        (SHORT, MAX_NUMBERS, "numbers"),
        (RATIONAL, MAX_RATIONALS, "fractions"),
    ):
        file = tiff([(282, kind, most + 1, 8)], data=bytes(8 * (most + 1)))
        refused(file, f"has more than {most} {what} in its tags")


def test_strips_are_limited_by_the_pixels():
    data = bytes(8 * 2**15)
    for tags in ((273, 279), (324, 325)):
        entries = [(tag, LONG, 2**15, 8) for tag in tags]
        reason = "has 32768 strips or tiles, too many for its 32768 pixels"
        refused(grey(1, 2**15, *entries, data=data), reason)
        assert not header_excess(io.BytesIO(grey(16, 2**15, *entries, data=data)))


def test_compressed_strips_that_share_their_bytes_are_refused():
    strip = zlib.compress(bytes(2**12))
    entries = [(259, SHORT, 1, 8), (273, LONG, 100, 8), (278, LONG, 1, 1)]
    sizes = np.full(100, 300, "<u4").tobytes()
    place = len(grey(16, 100, *entries, (279, LONG, 100, 0)))
    file = grey(16, 100, *entries, (279, LONG, 100, place), data=sizes + strip + bytes(400))
    refused(file, "has strips or tiles that together are larger than the file")


def test_a_jpeg_of_many_parts_is_refused():
    empty = (0xE5, b"")
    assert not header_excess(io.BytesIO(jpeg(*[empty] * (MAX_PARTS - 10))))
    refused(jpeg(*[empty] * (MAX_PARTS + 1)), "has more than 4096 segments or blocks before")
    refused(jpeg(*[(0xE5, bytes(65000))] * 260), "has more than 16 MiB before its pixels")
    blocks = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5000
    refused(jpeg((0xED, blocks)), "has more than 4096 segments or blocks before")
    file = jpeg()
    for filling in (b"\xff", b"\0", b"\xff\0"):
        long = file[:2] + b"\xff\xfe\0\2" + filling * 70000 + file[2:]
        refused(long, "has more than 65536 bytes between its segments")


def test_a_png_of_many_chunks_before_its_pixels_is_refused():
    file = picture("PNG")
    end = len(PNG_START) + 25  # of the first chunk
    chunk = struct.pack(">I4sI", 0, b"abCd", zlib.crc32(b"abCd"))
    refused(file[:end] + chunk * MAX_PARTS + file[end:], "has more than 4096 chunks")
    assert not header_excess(io.BytesIO(file[:end] + chunk * (MAX_PARTS - 1) + file[end:]))
    pixels = struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))
    assert not header_excess(io.BytesIO(file[:end] + pixels * 2 * MAX_PARTS + file[end:]))
    refused(file[:-12] + chunk * MAX_CHUNKS + file[-12:], "has more than 65536 chunks")
