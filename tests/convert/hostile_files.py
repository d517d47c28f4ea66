"""Files that were made to harm who imports them: archives, tensors and texts of Vowpal Wabbit.

Each case writes one file, and the importers must refuse it in one sentence.
"""

import io
import json
import os
import pickle
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

Case = Callable[[Path], Path]
VOWPAL_HEADER = (
    "Version 9.11.9\nId \nMin label:-50\nMax label:50\nbits:10\nlda:0\n0 ngram:\n0 skip:\noptions:\nChecksum: 1\n:0\n"
)


class Payload:
    """Runs a command if it is unpickled: it makes the file `touched` in the folder of the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._folder}/touched",)


def npy(array: Any) -> bytes:
    """Return an array as an .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def npy_header(text: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """Return an .npy file with a header of any text."""
    header = text.encode().ljust(118) + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header + data


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write an archive of members."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def weight_archive(path: Path, weight: bytes) -> Path:
    """Write an .npz file with this weight."""
    return archive(path, {"w.npy": weight, "b.npy": npy(np.zeros(2))})


def named_archive(*names: str) -> Case:
    """Return a case of an archive with further members."""
    content = npy(np.zeros((3, 2)))
    return lambda path: archive(path, {"w.npy": content, **dict.fromkeys(names, content)})


def with_header(text: str, data: bytes = b"") -> Case:
    """Return a case of an .npz file whose weight has this header."""
    return lambda path: weight_archive(path, npy_header(text, data))


def tensors(header: object, data: bytes = b"\0" * 48, size: int | None = None) -> Case:
    """Return a case of a safetensors file with this header: an object, or bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()

    def write(path: Path) -> Path:
        path.write_bytes((len(raw) if size is None else size).to_bytes(8, "little") + raw + data)
        return path

    return write


def text(content: str | bytes) -> Case:
    """Return a case of a file with this content."""

    def write(path: Path) -> Path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def vowpal(old: str, new: str) -> Case:
    """Return a case of a readable model with a part replaced."""
    assert old in VOWPAL_HEADER
    return text(VOWPAL_HEADER.replace(old, new))


def spec(dtype: str = "F64", shape: Any = (3, 2), offsets: Any = (0, 48)) -> dict[str, Any]:
    """Return a tensor of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def write_bomb(path: Path) -> Path:
    """Write an archive of 260 kB whose weight inflates to 256 MiB."""
    header = npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (8192, 4096), }")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("w.npy", "w") as member:
        member.write(header)
        for _ in range(256):
            member.write(bytes(1 << 20))
    return path


def write_many_members(path: Path) -> Path:
    """Write an archive of 40,000 empty members."""
    return archive(path, {f"{i:060}.npy": b"" for i in range(40_000)}, zipfile.ZIP_STORED)


def write_understated(path: Path) -> Path:
    """Write an archive whose directory says that a member of 64 MiB has 176 bytes, too few for its header's shape."""
    content = npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (2048, 4096), }") + bytes(64 << 20)
    weight_archive(path, content)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<I", len(content)), struct.pack("<I", 176)))
    return path


def write_link(path: Path) -> Path:
    """Write an archive with a symbolic link."""
    with zipfile.ZipFile(path, "w") as file:
        info = zipfile.ZipInfo("w.npy")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    return path


def write_doubled(path: Path) -> Path:
    """Write an archive with a name twice."""
    content = npy(np.zeros((3, 2)))
    archive(path, {"w.npy": content, "v.npy": content})
    path.write_bytes(path.read_bytes().replace(b"v.npy", b"w.npy"))
    return path


def write_encrypted(path: Path) -> Path:
    """Write an archive whose members claim to be encrypted."""
    weight_archive(path, npy(np.zeros((3, 2))))
    raw = bytearray(path.read_bytes())
    at = raw.find(b"PK\x01\x02")
    while at >= 0:
        raw[at + 8] |= 1
        at = raw.find(b"PK\x01\x02", at + 4)
    path.write_bytes(raw)
    return path


def write_truncated(path: Path) -> Path:
    """Write half of an archive."""
    weight_archive(path, npy(np.random.default_rng(0).normal(size=(300, 2))))
    path.write_bytes(path.read_bytes()[:2000])
    return path


def write_damaged(path: Path) -> Path:
    """Write an archive with changed bytes in a member."""
    weight_archive(path, npy(np.random.default_rng(0).normal(size=(300, 2))))
    raw = bytearray(path.read_bytes())
    raw[400:420] = bytes(20)
    path.write_bytes(raw)
    return path


def write_pipe(path: Path) -> Path:
    """Make a named pipe."""
    os.mkfifo(path)
    return path


def write_objects(path: Path) -> Path:
    """Write an .npz file whose weight is an array of objects with a payload."""
    return weight_archive(path, npy(np.array([Payload(path.parent)], dtype=object)))


def write_disguised_objects(path: Path) -> Path:
    """Write an array of objects whose header says that it has floats; its data is a pickle."""
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }"
    return weight_archive(path, npy_header(header, pickle.dumps(Payload(path.parent))))


def write_pickle(path: Path) -> Path:
    """Write a pickle."""
    path.write_bytes(pickle.dumps(Payload(path.parent)))
    return path


def write_old_pickle(path: Path) -> Path:
    """Write a pickle of the first protocol, which is text."""
    path.write_bytes(pickle.dumps(Payload(path.parent), protocol=0))
    return path


def write_compressed_pickle(path: Path) -> Path:
    """Write a pickle as joblib compresses it."""
    path.write_bytes(zlib.compress(pickle.dumps(Payload(path.parent))))
    return path


def write_torch(path: Path) -> Path:
    """Write an archive as torch.save does, with a pickle."""
    return archive(path, {"model/data.pkl": pickle.dumps(Payload(path.parent)), "model/data/0": b""})


def write_nan(path: Path) -> Path:
    """Write a weight with NaN."""
    return weight_archive(path, npy(np.array([[1.0, np.nan], [0, 0], [0, 0]])))


def write_infinite_tensor(path: Path) -> Path:
    """Write a tensor with an infinite number."""
    safetensors.numpy.save_file({"w": np.array([[1.0, np.inf]]), "b": np.zeros(2)}, path)
    return path


# By name: a case, and a word of the sentence that refuses it.
CASES: dict[str, tuple[Case, str]] = {
    "an empty file": (text(b""), "no .skops"),
    "any text": (text("hello"), "no .skops"),
    "a named pipe": (write_pipe, "regular file"),
    "a pickle": (write_pickle, "pickle"),
    "a pickle as text": (write_old_pickle, "pickle"),
    "a compressed pickle": (write_compressed_pickle, "pickle"),
    "a file of torch.save": (write_torch, "pickle"),
    "HDF5": (text(b"\x89HDF\r\n\x1a\n"), "Keras"),
    "a binary model of Vowpal Wabbit": (text(b"\x07\0\0\0" + b"9.11.9\0" + bytes(90)), "--readable_model"),
    "npz: a bomb": (write_bomb, "expands"),
    "npz: an understated size": (write_understated, ""),
    "npz: 40,000 members": (write_many_members, "members"),
    "npz: a name twice": (write_doubled, "two members"),
    "npz: a link": (write_link, "link"),
    "npz: encrypted": (write_encrypted, "encrypted"),
    "npz: truncated": (write_truncated, "cut off"),
    "npz: damaged": (write_damaged, "damaged"),
    "npz: an absolute name": (named_archive("/etc/cron.d/x.npy"), "path"),
    "npz: a name with ..": (named_archive("../../x.npy"), "path"),
    "npz: a Windows path": (named_archive("C:\\x.npy"), "path"),
    "npz: bzip2": (lambda path: archive(path, {"w.npy": bytes(100)}, zipfile.ZIP_BZIP2), "deflate"),
    "npz: no array": (lambda path: archive(path, {"readme": b"x"}), "neither"),
    "npz: objects": (write_objects, "objects"),
    "npz: objects in disguise": (write_disguised_objects, ""),
    "npz: NaN": (write_nan, "finite"),
    "npz: whole numbers": (lambda path: weight_archive(path, npy(np.zeros((3, 2), np.int64))), "floats"),
    "npz: complex numbers": (lambda path: weight_archive(path, npy(np.zeros((3, 2), complex))), "numbers"),
    "npz: a record": (with_header("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (3, 2), }"), "numbers"),
    "npz: three dimensions": (lambda path: weight_archive(path, npy(np.zeros((3, 2, 2)))), "matrix"),
    "npz: no numbers": (lambda path: weight_archive(path, npy(np.zeros((0, 2)))), "matrix"),
    "npz: a huge shape": (
        with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 2), }"),
        "size",
    ),
    "npz: a negative shape": (with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-3, -2), }"), "negative"),
    "npz: too little data": (with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }", b"1"), "size"),
    "npz: code in the header": (with_header("__import__('os').system('touch touched')"), "header"),
    "npz: a deep header": (with_header("(" * 5000), "header"),
    "npz: a long header": (
        with_header(f"{{'descr': '<f8', 'shape': ({'1,' * 30_000}), 'fortran_order': False}}"),
        "header",
    ),
    "npz: no header": (lambda path: weight_archive(path, b"hello"), "header"),
    "npz: an unknown version": (lambda path: weight_archive(path, npy_header("{}", version=b"\x09\x00")), "header"),
    "safetensors: a huge header": (tensors(b"{" + b" " * 100, size=1 << 40), "header"),
    "safetensors: a header longer than the file": (tensors(b'{"w":', size=1 << 20), "header"),
    "safetensors: deep JSON": (tensors(b'{"w":' + b"[" * 1_000_000), "header"),
    "safetensors: a name twice": (
        tensors(f'{{"w":{json.dumps(spec())},"w":{json.dumps(spec())}}}'.encode()),
        "twice",
    ),
    "safetensors: a list": (tensors(b"{}[]"), "header"),
    "safetensors: no offsets": (tensors({"w": {"dtype": "F64", "shape": [3, 2]}}), "header"),
    "safetensors: overlapping tensors": (tensors({"w": spec(), "b": spec(shape=[2], offsets=[0, 16])}), "whole"),
    "safetensors: offsets beyond the file": (tensors({"w": spec(offsets=[0, 1 << 40])}), "whole"),
    "safetensors: negative offsets": (tensors({"w": spec(offsets=[-48, 0])}), "whole"),
    "safetensors: a huge shape": (tensors({"w": spec(shape=[1 << 40, 1 << 40])}), "whole"),
    "safetensors: whole numbers": (tensors({"w": spec("I64")}), "floats"),
    "safetensors: an unknown dtype": (tensors({"w": spec("OBJECT")}), "whole"),
    "safetensors: truncated": (tensors({"w": spec()}, bytes(20)), "whole"),
    "safetensors: infinity": (write_infinite_tensor, "finite"),
    "safetensors: without the tensor": (tensors({"\u202e../x": spec()}), "no tensor"),
    "vowpal: nothing but a version": (text("Version 9.11.9\n"), "whole"),
    "vowpal: a header without end": (text("Version 9.11.9\n" + "a:b\n" * 10_000), "whole"),
    "vowpal: a line of 8 MiB": (text("Version 9.11.9\n" + "x" * (8 << 20)), "bytes"),
    "vowpal: no bits": (vowpal("bits:10\n", ""), "bits"),
    "vowpal: 64 bits": (vowpal("bits:10", "bits:64"), "bits"),
    "vowpal: bits that are no number": (vowpal("bits:10", "bits:ten"), "bits"),
    "vowpal: 26 bits": (vowpal("bits:10", "bits:26"), "columns"),
    "vowpal: another loss": (vowpal("label:-50", "label:0"), "logistic"),
    "vowpal: n-grams": (vowpal("0 ngram:", "1 ngram:2"), "ngram"),
    "vowpal: a limit that is no number": (vowpal("label:-50", "label:x"), "finite"),
    "vowpal: an index twice": (text(f"{VOWPAL_HEADER}1:2\n1:3\n"), "twice"),
    "vowpal: an index beyond the table": (text(f"{VOWPAL_HEADER}1024:2\n"), "beyond"),
    "vowpal: a weight of NaN": (text(f"{VOWPAL_HEADER}1:nan\n"), "finite"),
    "vowpal: an infinite weight": (text(f"{VOWPAL_HEADER}1:1e999\n"), "finite"),
    "vowpal: no weight": (text(f"{VOWPAL_HEADER}1:2\nhello\n"), "neither"),
    "vowpal: a name that is no UTF-8": (text(VOWPAL_HEADER.encode() + b"\xff^a:1:2\n"), "UTF-8"),
    "vowpal: many weights of one index": (text(VOWPAL_HEADER + "1:1\n" * 2_000_000), "twice"),
    "vowpal: many namespaces": (
        text(VOWPAL_HEADER.replace("bits:10", "bits:20") + "".join(f"n{i}^a:{i}:1\n" for i in range(3000))),
        "namespaces",
    ),
    "vowpal: a file of a command": (vowpal("options:", "options: --final_regressor /etc/passwd"), "--final_regressor"),
}
