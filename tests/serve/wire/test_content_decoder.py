"""Bodies with a Content-Encoding are decoded in slices: to the same bytes, or refused."""

import gzip
import random
import zlib
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import DecodingError, EncodingError
from service.serve.wire import content_decoder
from service.serve.wire.content_decoder import MEMBERS_MAX, ContentDecoder, zstd


def raw_deflate(data: bytes) -> bytes:
    """Encode without the header and the checksum of zlib."""
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw deflate": raw_deflate,
    "zstd": zstd.compress,
}
ALL = pytest.mark.parametrize("name", ENCODERS)


def coding(name: str) -> str:
    return name.removeprefix("raw ")


def decode(name: str, pieces: list[bytes], size_max: int = 1 << 16) -> bytes:
    """Decode an encoded body that arrives in pieces."""
    decoder, decoded = ContentDecoder(coding(name)), bytearray()
    for piece in pieces:
        decoder.feed(piece)
        while part := decoder.read(size_max):
            assert len(part) <= size_max
            decoded += part
    decoder.check_end()
    return bytes(decoded)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [
        data[start:stop] for start, stop in pairwise(sorted({0, len(data), *(at % (len(data) + 1) for at in places)}))
    ]


@ALL
@settings(deadline=None, max_examples=60)
@given(
    data=st.binary(max_size=300) | st.binary(max_size=4).map(lambda part: part * 5000),
    places=st.lists(st.integers(0, 1 << 20), max_size=6),
    size_max=st.sampled_from([1, 7, 100, 1 << 16]),
    level=st.sampled_from([1, 6, 9]),
)
def test_pieces_and_slices_change_nothing(name: str, data: bytes, places: list[int], size_max: int, level: int) -> None:
    """Any cuts of the encoded body, and any size of slices, give the same bytes."""
    encoded = zlib.compress(data, level) if name == "deflate" else ENCODERS[name](data)
    assert decode(name, cut(encoded, places), size_max if len(data) < 1000 else 1 << 12) == data


@ALL
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_damaged_body_is_refused(name: str, data: st.DataObject) -> None:
    """One bit differs: refused, or decoded to the same bytes; without a checksum, to others at worst."""
    text = bytes(range(256)) * 3
    encoded = bytearray(ENCODERS[name](text))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decoded = decode(name, [bytes(encoded)])
    except DecodingError:
        return
    assert decoded == text or name in {"raw deflate", "zstd"}


@ALL
@given(data=st.binary(min_size=1, max_size=100))
def test_any_bytes_are_decoded_or_refused(name: str, data: bytes) -> None:
    """Nothing else happens, whatever arrives."""
    with suppress(DecodingError):
        decode(name, [data])


@ALL
def test_a_body_that_is_cut_off_is_refused(name: str) -> None:
    """At any place but its start; an empty body has nothing to decode."""
    encoded = ENCODERS[name](b"softstep" * 9)
    for end in range(1, len(encoded)):
        with pytest.raises(DecodingError):
            decode(name, [encoded[:end]])
    assert decode(name, []) == decode(name, [b""]) == b""


@ALL
@pytest.mark.parametrize("rest", [b"\x00", b"{}", b"\x00" * 100, b"\x1f\x8b"])
def test_bytes_after_the_end_are_refused(name: str, rest: bytes) -> None:
    """They belong to no member; padding counts as such too."""
    encoded = ENCODERS[name](b"softstep")
    for pieces in ([encoded + rest], [encoded, rest], [encoded, *(bytes([byte]) for byte in rest)]):
        with pytest.raises(DecodingError):
            decode(name, pieces)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_several_members_are_one_body(name: str) -> None:
    """As RFC 1952 and RFC 8878 have it; empty ones and skippable frames add nothing."""
    encode = ENCODERS[name]
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" if name == "zstd" else encode(b"")
    encoded = encode(b"one ") + encode(b"") + skippable + encode(b"two")
    for places in ([], list(range(len(encoded)))):
        assert decode(name, cut(encoded, places)) == b"one two"


def test_deflate_has_one_member() -> None:
    """RFC 1950 knows no further one."""
    for name in ("deflate", "raw deflate"):
        with pytest.raises(DecodingError):
            decode(name, [ENCODERS[name](b"one") * 2])


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_are_limited(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty members cost time and give nothing, so their number is bounded."""
    monkeypatch.setattr(content_decoder, "MEMBERS_MAX", 20)
    assert MEMBERS_MAX > 1024
    assert decode(name, [ENCODERS[name](b"a") * 20]) == b"a" * 20
    with pytest.raises(DecodingError):
        decode(name, [ENCODERS[name](b"a") * 21])


def test_zstd_windows_are_limited() -> None:
    """8 MiB is accepted, 16 MiB is not: a frame may not make the service keep so much."""
    noise = random.Random(1).randbytes(1 << 10)
    for log, accepted in ((23, True), (24, False)):
        options = {zstd.CompressionParameter.window_log: log, zstd.CompressionParameter.content_size_flag: 0}
        encoder = zstd.ZstdCompressor(options=options)
        encoded = encoder.compress(noise, encoder.FLUSH_BLOCK) + encoder.flush()
        if accepted:
            assert decode("zstd", [encoded]) == noise
        else:
            with pytest.raises(DecodingError, match="8 MiB"):
                decode("zstd", [encoded])


def test_dictionaries_are_refused() -> None:
    """The service has none."""
    encoder = zlib.compressobj(zdict=b"softstep")
    with pytest.raises(DecodingError):
        decode("deflate", [encoder.compress(b"softstep") + encoder.flush()])


@pytest.mark.parametrize("name", ENCODERS)
def test_a_slice_bounds_what_is_inflated(name: str) -> None:
    """A small body that stands for a large one is decoded only as far as it is read."""
    decoder = ContentDecoder(coding(name))
    decoder.feed(ENCODERS[name](bytes(50_000_000)))
    assert [len(decoder.read(1000)) for _ in range(3)] == [1000] * 3


@pytest.mark.parametrize("name", ["br", "compress", "identity", "aws-chunked", "", "gzip2", "GZIP"])
def test_other_codings_are_refused(name: str) -> None:
    with pytest.raises(EncodingError, match="gzip, deflate or zstd"):
        ContentDecoder(name)
