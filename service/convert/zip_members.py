"""List and read the members of a ZIP archive within bounds; nothing is extracted to a file.

Before `zipfile` reads the directory of the archive, its size is checked: each of its entries takes half a kilobyte of
memory. A member is inflated in pieces up to the size that the directory names, whatever its data would give.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, cast

from service.errors import ConversionError

BEGINNING: Final = b"PK\x03\x04"
# A directory of 10,000 members with long names.
DIRECTORY_BYTES_MAX: Final = 1 << 20
MEMBERS_MAX: Final = 10_000
# The end of an archive: signature, 4 numbers, the size and the place of the directory, the size of a comment.
END: Final = struct.Struct("<4s4H2LH")
END_SIGNATURE: Final = b"PK\x05\x06"
COMMENT_BYTES_MAX: Final = 0xFFFF
NO_ARCHIVE: Final = "the source is no whole ZIP archive"


class Archive:
    """An open archive.

    Attributes:
        members: Its members by their name.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive: Final = archive
        self.members: Final = check_members(archive.infolist())

    def open(self, name: str) -> BinaryIO:
        """Open a member for reading; it inflates as it is read, and ends at the size that the directory names."""
        return cast("BinaryIO", self._archive.open(self.members[name]))


@contextmanager
def open_archive(file: BinaryIO) -> Iterator[Archive]:
    """Open an archive.

    Raises:
        ConversionError: It is no archive, or has too many members, a name twice, an absolute name, one with "..", a
            link, or an encrypted member.
    """
    check_directory(file)
    try:
        with zipfile.ZipFile(file) as archive:
            yield Archive(archive)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, struct.error, EOFError, OSError, ValueError):
        raise ConversionError(NO_ARCHIVE) from None


def check_directory(file: BinaryIO) -> None:
    """Raise ConversionError if the directory of an archive is too large, or if there is none."""
    size = file.seek(0, 2)
    tail_size = min(size, END.size + COMMENT_BYTES_MAX)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    at = tail.rfind(END_SIGNATURE)
    if at < 0 or len(tail) - at < END.size:
        raise ConversionError(NO_ARCHIVE)
    directory_bytes = END.unpack_from(tail, at)[5]
    if directory_bytes > DIRECTORY_BYTES_MAX:
        raise ConversionError(f"the directory of the archive has more than {DIRECTORY_BYTES_MAX} bytes")
    file.seek(0)


def check_members(members: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Return the members of an archive by their name.

    Raises:
        ConversionError: A member has a name or a form that is not accepted.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    if len(members) > MEMBERS_MAX:
        raise ConversionError(f"the archive has more than {MEMBERS_MAX} members")
    for info in members:
        name = info.filename
        if name in found:
            raise ConversionError("the archive has a name twice")
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/") or "\0" in info.orig_filename:
            raise ConversionError("the archive has a member whose name leads out of it")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ConversionError("the archive has a link")
        if info.flag_bits & 1:
            raise ConversionError("the archive is encrypted")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ConversionError("a member of the archive is compressed in another way than by deflate")
        found[name] = info
    return found
