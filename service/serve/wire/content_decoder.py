"""Decode bodies with a Content-Encoding (RFC 9110, section 8.4.1), a slice at a time.

    gzip      RFC 1952: one member or several; x-gzip is its old name
    deflate   RFC 1950; also RFC 1951 alone, because many clients leave out the header and the checksum
    zstd      RFC 8878: one frame or several, with windows of at most 8 MiB (RFC 9659)

Python's decompressors release the interpreter's lock, so a thread can decode while the event loop runs.
"""

import sys
import zlib
from collections.abc import Callable
from typing import Any, Final

from service.errors import DecodingError, EncodingError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Members or frames of one body. bgzip makes one of every 64 KiB, so a body of the usual limit has 1024.
MEMBERS_MAX: Final = 4096
# A header of RFC 1950 names the method in four bits, and both bytes together are a multiple of 31.
ZLIB_METHOD, ZLIB_MULTIPLE = 8, 31
ZSTD_WINDOW_LOG_MAX: Final = 23

UNSUPPORTED: Final = "Content-Encoding must be gzip, deflate or zstd; encode the body once, or not at all."


def _inflate(start: bytes) -> Any:  # noqa: ANN401  # zlib's type has no public name
    """Return a decompressor for the deflate coding; `start` has the first two bytes."""
    has_header = start[0] & 15 == ZLIB_METHOD and int.from_bytes(start[:2]) % ZLIB_MULTIPLE == 0
    return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)


def _gunzip(_start: bytes) -> Any:  # noqa: ANN401  # as above
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _unzstd(_start: bytes) -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX})


# Makes the decompressor of a member or frame from its first two bytes.
DECOMPRESSORS: Final[dict[str, Callable[[bytes], Any]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "zstd": _unzstd,
}


class ContentDecoder:
    """Decodes one body.

    Args:
        coding: The coding's name, in lower case.

    Raises:
        EncodingError: There is no such coding.
    """

    def __init__(self, coding: str) -> None:
        if coding not in DECOMPRESSORS:
            raise EncodingError(UNSUPPORTED)
        self._coding: Final = coding
        self._decompressor: Any = None
        self._rest = b""  # input that is not decoded yet
        self._members = 0

    def feed(self, data: bytes) -> None:
        """Add encoded bytes."""
        self._rest += data

    def read(self, size_max: int) -> bytes:
        """Return the next decoded bytes, at most `size_max`; none if more input is needed.

        Raises:
            DecodingError: The input is not of this coding, or too much follows its end.
        """
        try:
            while self._decompressor is not None or self._begin_member():
                decoded = self._advance(size_max)
                if decoded or self._decompressor is not None:
                    return decoded
        except (zlib.error, zstd.ZstdError):
            raise self._invalid() from None
        return b""

    def check_end(self) -> None:
        """Raise DecodingError if the input ends too early."""
        if self._decompressor is not None or self._rest:
            raise self._invalid()

    def _begin_member(self) -> bool:
        """Make the decompressor of the next member; return False if its beginning has not arrived."""
        if len(self._rest) < 2:  # noqa: PLR2004  # the bytes that decide; no member is shorter
            return False
        self._members += 1
        if self._members > (1 if self._coding == "deflate" else MEMBERS_MAX):
            raise self._invalid()
        self._decompressor = DECOMPRESSORS[self._coding](self._rest)
        return True

    def _advance(self, size_max: int) -> bytes:
        """Return what the decompressor makes of the input; drop it at the end of its member."""
        decompressor = self._decompressor
        decoded: bytes = decompressor.decompress(self._rest, size_max)
        if decompressor.eof:
            self._rest = decompressor.unused_data
            self._decompressor = None
        else:  # zstd keeps the input by itself
            self._rest = getattr(decompressor, "unconsumed_tail", b"")
        return decoded

    def _invalid(self) -> DecodingError:
        window = " with a window of at most 8 MiB" if self._coding == "zstd" else ""
        return DecodingError(
            f"The body is not valid {self._coding}{window} from its start to its end; encode it again."
        )
