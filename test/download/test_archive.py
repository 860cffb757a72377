from __future__ import annotations

import contextlib
import gzip
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from litevlm_ros.download.archive import extract_engines
from litevlm_ros.errors import DownloadError

VISION = "vision_encoder_fp16.engine"
TEXT = "text_decoder_int4.engine"
LIMIT = 1 << 20

Pack = Callable[..., Path]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Writes a .tar.gz of members: a name with its bytes, or a TarInfo."""

    def write(*members: tuple[str, bytes] | tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> Path:
        with tarfile.open(tmp_path / "packed.tar.gz", "w:gz", format=format) as archive:
            for member in members:
                if isinstance(member, tarfile.TarInfo):
                    archive.addfile(member, io.BytesIO(bytes(member.size)))
                else:
                    info = tarfile.TarInfo(member[0])
                    info.size = len(member[1])
                    archive.addfile(info, io.BytesIO(member[1]))
        return tmp_path / "packed.tar.gz"

    return write


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "inside" / "target").mkdir(parents=True)
    return tmp_path / "inside" / "target"


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_engines_and_sidecars(pack: Pack, target: Path) -> None:
    # 1024 bytes end where the next header begins.
    archive = pack((f"./{VISION}", b"v" * 1024), (f"{VISION}.json", b"{}"), (TEXT, b"t" * 700))
    assert extract_engines(archive, target, LIMIT) == [target / TEXT, target / VISION]
    assert {file.name: file.stat().st_size for file in target.iterdir()} == {
        VISION: 1024,
        f"{VISION}.json": 2,
        TEXT: 700,
    }


def test_a_packed_directory(target: Path, tmp_path: Path) -> None:
    """`tar -czf packed.tar.gz -C models .`"""
    source = tmp_path / "models"
    source.mkdir()
    (source / VISION).write_bytes(b"v")
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        archive.add(source, ".")
    assert extract_engines(tmp_path / "packed.tar.gz", target, LIMIT) == [target / VISION]


@pytest.mark.parametrize(
    "name",
    [
        f"../{VISION}",
        f"/tmp/{VISION}",
        f"././{VISION}",
        f"models/{VISION}",
        f"models/../{VISION}",
        "vision_encoder.engine",
        "vision_encoder_fp16.engine.json.py",
        "model.safetensors",
        "",
    ],
)
def test_other_names_and_places_are_refused(name: str, pack: Pack, target: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"is refused: it holds .* only plain files are allowed"):
        extract_engines(pack((name, b"x"), (VISION, b"v")), target, LIMIT)
    assert list(target.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "packed.tar.gz"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_only_plain_files(kind: bytes, pack: Pack, target: Path) -> None:
    with pytest.raises(DownloadError, match="only plain files are allowed"):
        extract_engines(pack(special(VISION, kind, "/etc/hostname"), (VISION, b"v")), target, LIMIT)
    assert list(target.iterdir()) == []


def test_sparse_files_are_refused(pack: Pack, target: Path) -> None:
    with pytest.raises(DownloadError, match=r"is refused|is damaged"):
        extract_engines(pack(special(VISION, tarfile.GNUTYPE_SPARSE), format=tarfile.GNU_FORMAT), target, LIMIT)


def test_a_name_twice(pack: Pack, target: Path) -> None:
    with pytest.raises(DownloadError, match=f"holds {VISION} twice"):
        extract_engines(pack((VISION, b"1"), (f"./{VISION}", b"2")), target, LIMIT)


def test_all_files_together_stay_below_the_limit(pack: Pack, target: Path) -> None:
    archive = pack((VISION, bytes(600)), (TEXT, bytes(401)))
    with pytest.raises(DownloadError, match=r"text_decoder_int4\.engine has .* are allowed or free"):
        extract_engines(archive, target, 1000)
    (target / VISION).unlink()
    assert len(extract_engines(archive, target, 1001)) == 2


def test_sidecars_are_small(pack: Pack, target: Path) -> None:
    with pytest.raises(DownloadError, match=r"engine\.json has 1\.05 MB"):
        extract_engines(pack((f"{VISION}.json", bytes((1 << 20) + 1))), target, 1 << 30)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_huge_headers_are_not_read_into_memory(format: int, pack: Pack, target: Path) -> None:
    """A name of 64 MB is less than 100 kB when it is compressed."""
    archive = pack(("x" * (64 << 20), b""), (VISION, b"v"), format=format)
    assert archive.stat().st_size < 1 << 20
    with pytest.raises(DownloadError, match="its headers are too large"):
        extract_engines(archive, target, LIMIT)


def test_damaged_archives(pack: Pack, target: Path) -> None:
    archive = pack((VISION, bytes(range(256)) * 400))
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"PK\3\4", whole[:50] + bytes(50) + whole[100:]):
        archive.write_bytes(damaged)
        with pytest.raises(DownloadError, match=r"is no \.tar\.gz, or is damaged .*fetch it again"):
            extract_engines(archive, target, LIMIT)
        (target / VISION).unlink(missing_ok=True)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def extended(kind: bytes, text: bytes) -> bytes:
    """A header about the member behind it, with its text."""
    return header("x", len(text), kind) + text + bytes(-len(text) % tarfile.BLOCKSIZE)


PAX = tarfile.XHDTYPE


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(1000 * extended(PAX, b"10 a=bcdef\n"), id="a chain"),
        pytest.param(1000 * extended(tarfile.XGLTYPE, b"10 a=bcdef\n"), id="a chain of global ones"),
        pytest.param(1000 * extended(tarfile.GNUTYPE_LONGNAME, b"name\0"), id="a chain of names"),
        pytest.param(extended(PAX, b"99999999999999999999 size=1\n"), id="a length that is too large"),
        pytest.param(extended(PAX, b"9" * 5000 + b" size=1\n"), id="a length of 5000 digits"),
        pytest.param(extended(PAX, b"20 GNU.sparse.size=x\n"), id="a sparse file without a number"),
        pytest.param(extended(PAX, b"29 GNU.sparse.map=1,x,3,4,5,6\n"), id="a sparse file without a map"),
        pytest.param(extended(PAX, b"13 size=-700\n"), id="a negative size"),
        pytest.param(extended(PAX, b"33 size=9999999999999999999999999\n"), id="a huge size"),
        pytest.param(extended(PAX, b"22 path=\x1b[2J.engine\n"), id="a name that clears the screen"),
    ],
)
def test_headers_that_are_made_to_harm(headers: bytes, target: Path, tmp_path: Path) -> None:
    archive = tmp_path / "made.tar.gz"
    archive.write_bytes(gzip.compress(headers + header(VISION, 700) + bytes(2048)))
    with pytest.raises(DownloadError, match=r"is damaged|is refused") as raised:
        extract_engines(archive, target, LIMIT)
    assert str(raised.value).isprintable()


def test_headers_with_random_damage(pack: Pack, target: Path) -> None:
    rng = random.Random(1)
    whole = gzip.decompress(pack((VISION, b"v" * 700), (f"{VISION}.json", b"{}"), ("x" * 300, b"")).read_bytes())
    for _ in range(300):
        changed = bytearray(whole)
        block = rng.randrange(len(whole) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        for _ in range(rng.choice((1, 2, 6))):
            changed[block + rng.randrange(tarfile.BLOCKSIZE)] = rng.choice((0, 128, 255, ord("-"), rng.randrange(256)))
        changed[block + 148 : block + 156] = b"        "  # a checksum that is right lets more damage in
        checksum = sum(changed[block : block + tarfile.BLOCKSIZE])
        changed[block + 148 : block + 156] = b"%06o\0 " % checksum
        archive = target.parent / "damaged.tar.gz"
        archive.write_bytes(gzip.compress(changed, 1))
        with contextlib.suppress(DownloadError):
            extract_engines(archive, target, LIMIT)
        assert {file.name for file in target.iterdir()} <= {VISION, f"{VISION}.json"}
        assert {file.name for file in target.parent.iterdir()} == {"target", "damaged.tar.gz"}
        for file in target.iterdir():
            file.unlink()


def test_no_engines(pack: Pack, target: Path) -> None:
    with pytest.raises(DownloadError, match=r"holds no engines; allowed are vision_encoder_fp16\.engine,"):
        extract_engines(pack((f"{VISION}.json", b"{}")), target, LIMIT)


def test_no_such_file(target: Path) -> None:
    with pytest.raises(DownloadError, match=r"cannot be unpacked \(No such file"):
        extract_engines(target / "missing.tar.gz", target, LIMIT)
