"""Images as a camera might send them, and as none should: an RGB array or MalformedImageError, with little memory."""

from __future__ import annotations

import array
import itertools
import random
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import chunk, frame, jpeg, png, png_header, progressive, restarting, segment
from resident_memory import growth

from litevlm_ros.errors import MalformedImageError
from litevlm_ros.images import jpeg_decoder
from litevlm_ros.images.compressed import check_compressed, decode_compressed
from litevlm_ros.images.decoding import ENCODINGS, check_raw, decode_raw

MOST_PIXELS = 50_000
MOST_GROWTH = 20 << 20
"""Bytes: a few copies of the largest image."""


def many(examples: int) -> Callable[[Any], Any]:
    """The same examples in every run, so that a failure can be seen again."""
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


def seeded(cases: int) -> Callable[[Callable[[random.Random], None]], Callable[[], None]]:
    """Calls a test with a seeded generator for each case, which takes a tenth of the time that Hypothesis takes."""

    def decorate(test: Callable[[random.Random], None]) -> Callable[[], None]:
        def run() -> None:
            for seed in range(cases):
                try:
                    test(random.Random(seed))
                except BaseException:
                    print(f"in the case of the seed {seed}")  # pytest shows it with the failure
                    raise

        run.__name__ = test.__name__
        return run

    return decorate


def any_number(draw: random.Random) -> int:
    """A size as a broken message may give it: small, anything of 32 bits, or where integers end."""
    kind = draw.randrange(3)
    ends = (0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
    return draw.choice(ends) if kind == 0 else draw.randint(0, 70) if kind == 1 else draw.getrandbits(32)


def decodes_or_is_refused(decode: Callable[[], Any]) -> np.ndarray | None:
    """The RGB array, or None for what was refused in words; fails for anything else."""
    try:
        image = decode()
    except MalformedImageError as error:
        told = str(error)
        if not told.isprintable() or len(told) > 1000:
            pytest.fail(f"this would garble or flood the log: {told[:2000]!r}")
        return None
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert 1 <= image.shape[0] * image.shape[1] <= MOST_PIXELS
    int(image.sum())  # reads every byte: memory that is not the image's would crash or show in a sanitizer
    return image


texts = st.text(max_size=40) | st.text(min_size=1, max_size=4).map(lambda text: 5000 * text) | st.just("RGB8")
numbers = st.integers(0, 70) | st.integers(0, 2**32 - 1) | st.sampled_from([2**31 - 1, 2**31, 2**32 - 1, 2**16])


@seeded(4000)
def test_raw_images_with_any_numbers_in_their_header(draw: random.Random) -> None:
    size, bigendian = draw.randint(0, 9000), draw.random() < 0.5
    data = array.array("B", bytes(size))
    width, height = any_number(draw), any_number(draw)
    arguments = (draw.choice(ENCODINGS), width, height, any_number(draw))
    image = decodes_or_is_refused(lambda: decode_raw(*arguments, data, bigendian, max_pixels=MOST_PIXELS))
    checked = decodes_or_is_refused(lambda: _checked(*arguments, data))
    assert (image is None) == (checked is None), "the quick check and the decoder disagree"
    if image is not None:
        assert image.shape == (height, width, 3)


def _checked(*arguments: Any) -> np.ndarray:
    check_raw(*arguments, max_pixels=MOST_PIXELS)
    return np.zeros((1, 1, 3), np.uint8)


_SAMPLES = {"rgba": 4, "bgra": 4, "8UC4": 4, "rgb": 3, "bgr": 3, "8UC3": 3, "yu": 2, "uy": 2, "": 1}


@seeded(4000)
def test_raw_images_that_are_nearly_right(draw: random.Random) -> None:
    """Images that are right but for a few bytes of padding or length."""
    encoding, bigendian = draw.choice(ENCODINGS), draw.random() < 0.5
    width, height = draw.randint(1, 48), draw.randint(1, 48)
    samples = next(count for name, count in _SAMPLES.items() if encoding.startswith(name))
    step = max(0, width * samples * (2 if "16" in encoding else 1) + draw.randint(-1, 5))
    needed = int(step * height * {"nv12": 1.5, "nv21": 1.5, "nv24": 3.0}.get(encoding, 1.0))
    data = array.array("B", draw.randbytes(max(0, needed + draw.randint(-12, 3))))
    decodes_or_is_refused(lambda: decode_raw(encoding, width, height, step, data, bigendian, max_pixels=MOST_PIXELS))


@many(400)
@given(texts, numbers, numbers, numbers, st.binary())
def test_raw_images_of_any_encoding(encoding, width, height, step, data):
    decodes_or_is_refused(lambda: decode_raw(encoding, width, height, step, data, max_pixels=MOST_PIXELS))


def _encoded(extension: str, channels: int = 3, parameters: tuple[int, ...] = ()) -> bytes:
    pixels = np.random.default_rng(channels).integers(0, 256, (24, 40, channels), np.uint8)
    return cv2.imencode(extension, cv2.blur(pixels, (5, 5)), parameters)[1].tobytes()


_GOOD = (
    _encoded(".jpg"),
    _encoded(".jpg", 1),
    _encoded(".jpg", 3, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    _encoded(".jpg", 3, (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
    _encoded(".png"),
    _encoded(".png", 1),
    _encoded(".png", 4),
)
positions = st.integers(0, 1200) | st.integers(0, 80)


@seeded(4000)
def test_compressed_images_with_some_bytes_changed(draw: random.Random) -> None:
    damaged = bytearray(draw.choice(_GOOD))
    for _ in range(draw.randint(1, 6)):
        position = draw.randint(0, draw.choice((80, 1200))) % len(damaged)
        damaged[position] = draw.choice((0, 1, 0x7F, 0xFE, 0xFF, draw.getrandbits(8)))
    decodes_or_is_refused(lambda: decode_compressed("jpeg", bytes(damaged), max_pixels=MOST_PIXELS))


@many(900)
@given(st.sampled_from(_GOOD), st.sampled_from(_GOOD), positions, positions, st.binary(max_size=20))
def test_compressed_images_with_parts_left_out_put_in_or_taken_from_another(data, other, start, end, junk):
    start, end = sorted((start % len(data), end % len(data)))
    for damaged in (data[:start] + data[end:], data[:start] + junk + data[start:], data[:start] + other[start:]):
        decodes_or_is_refused(lambda damaged=damaged: decode_compressed("", damaged, max_pixels=MOST_PIXELS))


@many(700)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"]), st.binary(), st.text()
)
def test_compressed_images_of_nonsense(start, data, image_format):
    decodes_or_is_refused(lambda: decode_compressed(image_format, start + data, max_pixels=MOST_PIXELS))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + b"".join(chunks) + _chunk(b"IEND", b"")


@many(500)
@given(
    numbers, numbers, st.sampled_from([1, 2, 4, 8, 16, 3]), st.integers(0, 7), st.integers(0, 2), st.binary(),
    st.booleans(), st.lists(st.tuples(st.sampled_from([b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"acTL", b"IHDR", b"fcTL"]),
                                      st.binary(max_size=40)), max_size=3),
)  # fmt: skip
def test_png_headers_that_promise_anything(width, height, bits, colour, interlaced, data, packed, extras):
    chunks = [_chunk(name, body) for name, body in extras]
    chunks.append(_chunk(b"IDAT", zlib.compress(data * 20) if packed else data))
    png = _png(width, height, *chunks, bits=bits, colour=colour, interlaced=interlaced)
    decodes_or_is_refused(lambda: decode_compressed("png", png, max_pixels=MOST_PIXELS))


def _bombs() -> dict[str, bytes]:
    zeros = zlib.compress(bytes(30_000_000), 9)
    small = _png(8, 8, _chunk(b"IDAT", zeros))
    late = bytearray(_encoded(".jpg"))
    scan = late.index(b"\xff\xda")
    frame = late.index(b"\xff\xc0")
    second = bytearray(late[frame : frame + 19])
    second[5:9] = struct.pack(">HH", 65_000, 65_000)
    late[scan:scan] = second
    end = _encoded(".jpg")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = _chunk(b"IDAT", zlib.compress(bytes(8 * 25)))
    long = bytearray(_png(8, 8, _chunk(b"tEXt", b"k\0v"), pixels))
    long[33:37] = struct.pack(">I", 2**31 - 1)
    return {
        "a PNG with a chunk that claims 2 GB": bytes(long),
        "a PNG of more data than its size takes": small,
        "a PNG whose text unpacks to 30 MB": _png(8, 8, _chunk(b"zTXt", b"k\0\0" + zeros), pixels),
        "a PNG whose profile unpacks to 30 MB": _png(8, 8, _chunk(b"iCCP", b"k\0\0" + zeros), pixels),
        "a PNG with a second header": _png(8, 8, _chunk(b"IHDR", header), _chunk(b"IDAT", zeros)),
        "a PNG that claims 60000 rows of one pixel": _png(1, 60_000, _chunk(b"IDAT", zeros)),
        "a JPEG with a second frame header": bytes(late),
        "a JPEG behind a JPEG": end + bytes(late),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(_bombs()))
def test_small_images_that_ask_for_much_memory(name: str):
    bomb = _bombs()[name]

    def decode() -> None:
        decodes_or_is_refused(lambda: decode_compressed("", bomb, max_pixels=MOST_PIXELS))

    assert growth(decode) < MOST_GROWTH


_WHOLE = (*_GOOD, jpeg(), progressive(), restarting(), png())
_INSERTED = (
    b"\xff", b"\xff\xff", b"\xff\x01", b"\xff\xd0", b"\xff\xd8", b"\xff\xd9", b"\xff\x00", bytes(3), segment(0xE1),
    segment(0xDD, b"\0\x01"), segment(0xDA, b"\x01\x01\0\0\x3f\0"), segment(0xDC, b"\x7f\xff"),
    frame(30_000, 30_000), frame(8, 8), frame(200, 200, 0xC2), png_header(30_000, 30_000), chunk(b"IDAT"),
    chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), chunk(b"IEND"),
)  # fmt: skip


def _parts(picture: bytes) -> list[bytes]:
    """Cuts a PNG before its chunks, or a JPEG before its markers."""
    if picture.startswith(b"\xff"):
        cuts = [place for place in range(2, len(picture) - 1) if picture[place] == 0xFF and picture[place + 1]]
    else:
        cuts, place = [], 8
        while place + 4 <= len(picture):
            cuts.append(place)
            place += 12 + int.from_bytes(picture[place : place + 4], "big")
    return [picture[start:end] for start, end in itertools.pairwise([0, *cuts, len(picture)])]


def _spoilt(picture: bytes, draw: random.Random) -> bytes:
    kind = draw.randrange(4)
    if kind == 0:
        parts = _parts(picture)
        first, second = (draw.randrange(1, len(parts)) for _ in range(2))
        parts[first], parts[second] = parts[second], parts[first]
        return b"".join(parts)
    if kind == 1:
        parts = _parts(picture)
        place = draw.randrange(1, len(parts) + 1)
        return b"".join([*parts[:place], draw.choice(_INSERTED) * draw.choice((1, 1, 2, 900)), *parts[place:]])
    place = draw.randrange(2, len(picture))
    if kind == 2:
        return picture[:place] + draw.choice(_INSERTED) + picture[place + draw.choice((0, 0, 1, 30)) :]
    return picture[:place] + bytes([picture[place] ^ 1 << draw.randrange(8)]) + picture[place + 1 :]


@pytest.mark.parametrize("decoder", ["simplejpeg", "opencv"])
def test_spoilt_pictures_are_refused_or_have_the_size_that_was_checked(decoder, monkeypatch):
    if decoder == "opencv":
        monkeypatch.setattr(jpeg_decoder, "simplejpeg", None)
    read = 0

    def look_at(picture: bytes) -> None:
        nonlocal read
        image = decodes_or_is_refused(lambda: decode_compressed("", picture, max_pixels=MOST_PIXELS))
        if image is not None:
            header = check_compressed("", picture, max_pixels=MOST_PIXELS)
            assert sorted(image.shape[:2]) == sorted((header.height, header.width))
            read += 1

    def look_at_all() -> None:
        for seed in range(4000):
            draw = random.Random(seed)
            picture = draw.choice(_WHOLE)
            for _ in range(draw.randint(1, 3)):
                picture = _spoilt(picture, draw)
            look_at(picture)

    started = time.thread_time()
    assert growth(look_at_all) < MOST_GROWTH
    assert time.thread_time() - started < 60.0
    assert 100 < read < 3900, "the pictures are not spoilt so that some can be read"
