"""Read the members of a zip archive into memory, within bounds.

Accepted is what libraries of numeric work write: one archive without a prefix, a comment or encryption, whose members
are stored or deflated, and have plain names, each of its own. No member is written to disk, so a name is a key only.
"""

import re
import stat
import struct
import zipfile
import zlib
from typing import BinaryIO, Final

from service.errors import ConversionError

# Weights of a large model, and of its parts.
ARCHIVE_BYTES_MAX: Final = 1 << 30
# A classifier of a thousand one-versus-rest estimators has some ten arrays each.
MEMBERS_MAX: Final = 32_768
# Compressed weights are rarely half as long; zeros expand a thousandfold. What expands more takes at most this much.
EXPANSION_MAX: Final = 16
EXPANDED_BYTES_MAX: Final = 32 << 20
# Members are read when they are asked for, some of them several times. All together may be read as often as this.
READS_MAX: Final = 4
# The name and the facts of a member take some 100 bytes.
DIRECTORY_BYTES_MAX: Final = 8 << 20
# The record that ends an archive (PKWARE, APPNOTE.TXT, 4.3.16): its signature, and its size without a comment.
MEMBER_SIGNATURE: Final = b"PK\x01\x02"
END_SIGNATURE: Final = b"PK\x05\x06"
END_RECORD: Final = struct.Struct("<4s4H2LH")
# Where an archive needs 64-bit numbers, a field of the record is full.
NEEDS_64_BITS: Final = (0xFFFF, 0xFFFF_FFFF)
ENCRYPTED: Final = 0x1
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", re.ASCII)
# Names of weights have scopes: "dense/kernel:0.npy". No part begins with a dot, and so none is "..".
SCOPED_NAME: Final = re.compile(
    r"(?=.{1,255}$)[A-Za-z0-9_][A-Za-z0-9_.:-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.:-]*)*", re.ASCII
)
METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipArchive:
    """The members of an archive, each read when it is asked for.

    Args:
        file: The archive, open for reading; it must stay open.
        name: The names that members may have.
        within: The archive that this one is a member of.

    Attributes:
        size: Its bytes.

    Raises:
        ConversionError: It is no archive of the accepted kind, or exceeds a bound.
    """

    def __init__(self, file: BinaryIO, name: re.Pattern[str] = PLAIN_NAME, within: "ZipArchive | None" = None) -> None:
        _check_end_record(file)
        try:
            self._zip: Final = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError, struct.error, OSError):
            raise ConversionError("the directory of the archive is damaged") from None
        self._members: Final[dict[str, zipfile.ZipInfo]] = {}
        for member in self._zip.infolist():
            _check_member(member, name)
            if member.filename in self._members:
                raise ConversionError("the archive has two members of one name")
            self._members[member.filename] = member
        self.size: Final = file.seek(0, 2)
        expanded = sum(member.file_size for member in self._members.values())
        allowed = max(EXPANDED_BYTES_MAX, EXPANSION_MAX * self.size)
        if expanded > allowed:
            raise ConversionError(
                f"the archive expands to {expanded} bytes, which is more than is allowed for its size"
            )
        self._unread = READS_MAX * allowed
        self._outer: Final = self if within is None else within

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the members."""
        return tuple(self._members)

    def read(self, name: str, bytes_max: int = ARCHIVE_BYTES_MAX) -> bytes:
        """Return the bytes of a member.

        Args:
            name: Its name.
            bytes_max: Its largest size.

        Raises:
            ConversionError: There is no such member, or it is damaged or too large.
        """
        member = self._members.get(name)
        if member is None:
            raise ConversionError("a member that the archive names is missing")
        if member.file_size > bytes_max:
            raise ConversionError(f"a member of the archive has {member.file_size} bytes, and the limit is {bytes_max}")
        self._outer.count_read(member.file_size)
        try:
            with self._zip.open(member) as stream:
                raw = stream.read(member.file_size + 1)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError, struct.error):
            raise ConversionError("a member of the archive is damaged") from None
        if len(raw) != member.file_size:
            raise ConversionError("a member of the archive has another size than its directory says")
        return raw

    def count_read(self, size: int) -> None:
        """Count bytes that are read from this archive, or from one within it.

        Raises:
            ConversionError: They are more than is allowed for the size of the archive.
        """
        self._unread -= size
        if self._unread < 0:
            raise ConversionError("the members of the archive are asked for too often, so that they expand too much")


def _check_end_record(file: BinaryIO) -> None:
    """Raise ConversionError unless the archive is one from its first byte to its last, with few members."""
    size = file.seek(0, 2)
    if size > ARCHIVE_BYTES_MAX:
        raise ConversionError(f"the archive has {size} bytes, and the limit is {ARCHIVE_BYTES_MAX}")
    if size < END_RECORD.size:
        raise ConversionError("the archive is cut off")
    file.seek(size - END_RECORD.size)
    signature, disk, start_disk, here, total, length, offset, comment = END_RECORD.unpack(file.read(END_RECORD.size))
    if signature != END_SIGNATURE or disk or start_disk or comment or here != total:
        raise ConversionError("the archive is cut off, or has a comment or several parts")
    if total in NEEDS_64_BITS or length in NEEDS_64_BITS or offset in NEEDS_64_BITS or total > MEMBERS_MAX:
        raise ConversionError(f"the archive has more than {MEMBERS_MAX} members, or needs 64-bit numbers")
    if offset + length + END_RECORD.size != size or length > DIRECTORY_BYTES_MAX:
        raise ConversionError("the archive has bytes before, between or after its parts, or a large directory")
    file.seek(offset)
    if file.read(length).count(MEMBER_SIGNATURE) != total:
        raise ConversionError("the archive has another number of members than it says")


def _check_member(member: zipfile.ZipInfo, name: re.Pattern[str]) -> None:
    if name.fullmatch(member.filename) is None or member.orig_filename != member.filename:
        raise ConversionError("a member of the archive has a path or another name that is not plain")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in {0, stat.S_IFREG}:
        raise ConversionError("a member of the archive is a link or no regular file")
    if member.flag_bits & ENCRYPTED:
        raise ConversionError("a member of the archive is encrypted")
    if member.compress_type not in METHODS:
        raise ConversionError("a member of the archive is compressed by a method other than deflate")
