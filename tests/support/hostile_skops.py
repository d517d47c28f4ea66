"""Hostile .skops files: archives, arrays and schemas that a reader must refuse."""

import io
import itertools
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import skops.io
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

Members = dict[str, bytes]
Schema = dict[str, Any]
SCHEMA = "schema.json"
# Ids of nodes that are added; those of skops are addresses.
IDS = itertools.count(1)
STATE = "content"


@cache
def honest(kind: str = "numbers") -> bytes:
    """Return a .skops file that is read."""
    model = LogisticRegression()
    if kind == "numbers":
        rng = np.random.default_rng(0)
        X = rng.normal(size=(60, 3))
        return skops.io.dumps(make_pipeline(StandardScaler(), model).fit(X, X[:, 0] > 0))
    if kind == "categories":
        table = np.array([["a"], ["b"], ["c"]] * 5, object)
        return skops.io.dumps(make_pipeline(OneHotEncoder(), model).fit(table, [0, 1, 1] * 5))
    return skops.io.dumps(make_pipeline(CountVectorizer(), model).fit(["one word", "other words"] * 5, [0, 1] * 5))


def members_of(raw: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(members: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return buffer.getvalue()


def nodes(value: Any) -> Iterator[Schema]:
    """Yield all nodes of a schema."""
    if isinstance(value, dict):
        if "__loader__" in value:
            yield value
        for one in value.values():
            yield from nodes(one)
    elif isinstance(value, list):
        for one in value:
            yield from nodes(one)


def find(schema: Schema, name: str) -> Schema:
    """Return the attributes of the first object of a class."""
    node = next(node for node in nodes(schema) if node["__class__"] == name and node["__loader__"] == "ObjectNode")
    return node["content"]["content"]


def edit(change: Callable[[Schema, Members], None], kind: str = "numbers") -> bytes:
    """Return a file with changes of the schema or of members."""
    members = members_of(honest(kind))
    schema = json.loads(members[SCHEMA])
    change(schema, members)
    if SCHEMA in members:
        members[SCHEMA] = json.dumps(schema).encode()
    return pack(members)


def with_array(array: Any, name: str = "coef_", part: str = "LogisticRegression", kind: str = "numbers") -> bytes:
    """Return a file whose attribute is another array, or the bytes of one."""
    raw = array if isinstance(array, bytes) else npy(array)
    return edit(lambda schema, members: members.update({find(schema, part)[name]["file"]: raw}), kind)


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def npy_header(header: str, version: tuple[int, int] = (1, 0), body: bytes = b"") -> bytes:
    raw = header.encode() + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(raw))
    return b"\x93NUMPY" + bytes(version) + size + raw + body


def described(shape: str, dtype: str = "'<f8'", body: bytes = b"") -> bytes:
    return npy_header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}", body=body)


def with_state(name: str, value: Any, part: str = "LogisticRegression", kind: str = "numbers") -> bytes:
    """Return a file whose attribute is another node."""
    return edit(lambda schema, _: find(schema, part).update({name: value}), kind)


def with_schema(raw: bytes) -> bytes:
    return pack({**members_of(honest()), SCHEMA: raw}, zipfile.ZIP_DEFLATED)


def with_long_schema() -> bytes:
    """Return a file of 4 MB whose schema is a compressed one of 49 MiB."""
    schema = np.random.default_rng(0).bytes(4_000_000) + b" " * (49 << 20)
    return pack({**members_of(honest()), SCHEMA: schema}, zipfile.ZIP_DEFLATED)


def node(loader: str, content: Any = None, name: str = "str", module: str = "builtins", **more: Any) -> Schema:
    return {
        "__class__": name,
        "__module__": module,
        "__loader__": loader,
        "__id__": next(IDS),
        "content": content,
        **more,
    }


def with_root(*arguments: Any, **more: Any) -> bytes:
    """Return a file whose root is another node."""
    return edit(lambda schema, _: schema.update(node(*arguments, **more)))


def value(number: Any) -> Schema:
    return node("JsonNode", json.dumps(number), is_json=True)


def nested(depth: int) -> Schema:
    inner = value(1)
    for identifier in range(100, 100 + depth):
        inner = {**node("ListNode", [inner], "list"), "__id__": identifier}
    return inner


def end_record(raw: bytes, **fields: int) -> bytes:
    """Return an archive with other numbers in its last record."""
    names = ["disk", "start", "here", "total", "length", "offset", "comment"]
    numbers = dict(zip(names, struct.unpack("<4HLLH", raw[-18:]), strict=True)) | fields
    return raw[:-18] + struct.pack("<4HLLH", *numbers.values())


def with_directory(change: Callable[[zipfile.ZipInfo], None]) -> bytes:
    """Return an archive whose first member has other facts in the directory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, raw in members_of(honest()).items():
            member = zipfile.ZipInfo(name)
            archive.writestr(member, raw)
        change(archive.infolist()[0])
    return buffer.getvalue()


def renamed(name: str) -> bytes:
    """Return an archive with a member of any name, which zipfile would not write."""
    stand_in = "Z" * len(name.encode())
    return pack({stand_in: b"x", **members_of(honest())}).replace(stand_in.encode(), name.encode())


def doubled(name: str) -> bytes:
    raw = members_of(honest())
    buffer = io.BytesIO(honest())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.NameToInfo.pop(name if name in raw else next(iter(raw)))
        archive.writestr(name if name in raw else next(iter(raw)), b"{}")
    return buffer.getvalue()


def bomb(size: int) -> bytes:
    """Return a file whose coefficients are zeros that deflate a thousandfold."""
    members = members_of(honest())
    schema = json.loads(members[SCHEMA])
    head = described(f"(1, {size // 8})")
    members[find(schema, "LogisticRegression")["coef_"]["file"]] = head + bytes(size)
    return pack(members, zipfile.ZIP_DEFLATED)


def nested_bomb(size: int) -> bytes:
    inner = pack({"data.npy": described(f"(1, {size // 8})") + bytes(size)}, zipfile.ZIP_DEFLATED)

    def change(schema: Schema, members: Members) -> None:
        members["inner.npz"] = inner
        find(schema, "LogisticRegression")["coef_"] = node("SparseMatrixNode", file="inner.npz", type="scipy")

    return edit(change)


def many_arrays(count: int, size: int) -> bytes:
    """Return a file with a list of one large array again and again."""

    def change(schema: Schema, members: Members) -> None:
        members["large.npy"] = described(f"({size // 8},)", body=bytes(size))
        arrays = [node("NdArrayNode", None, "ndarray", "numpy", type="numpy", file="large.npy") for _ in range(count)]
        find(schema, "Pipeline")["steps"] = node("ListNode", arrays, "list")

    return pack(members_of(edit(change)), zipfile.ZIP_DEFLATED)


def many_bombs(count: int, size: int) -> bytes:
    """Return a file with a list of archives, each of which expands a thousandfold."""
    inner = pack({"data.npy": described(f"({size // 8},)", body=bytes(size))}, zipfile.ZIP_DEFLATED)

    def change(schema: Schema, members: Members) -> None:
        members.update({f"{i}.npz": inner for i in range(count)})
        matrices = [node("SparseMatrixNode", file=f"{i}.npz", type="scipy") for i in range(count)]
        find(schema, "Pipeline")["steps"] = node("ListNode", matrices, "list")

    return edit(change)


def compact(values: str) -> bytes:
    """Return a file whose schema has these values, and spaces up to some 31 MB."""
    return with_schema(f'{{"protocol": 2, "x": {values}}}'.encode().ljust(31_000_000))


def circle(depth: int) -> bytes:
    """Return a file in which a node is within a node of its own id."""

    def change(schema: Schema, _: Members) -> None:
        inner: Schema = {"__class__": "list", "__module__": "builtins", "__loader__": "CachedNode"}
        inner["__id__"] = schema["__id__"]
        for identifier in range(depth):
            inner = {**node("TupleNode", [inner], "tuple"), "__id__": 10 + identifier}
        schema["content"]["content"]["steps"] = inner

    return edit(change)


def deep_pipeline(depth: int) -> bytes:
    def change(schema: Schema, _: Members) -> None:
        inner = dict(schema)
        for identifier in range(depth):
            pair = {**node("TupleNode", [value("next"), inner], "tuple"), "__id__": 1000 + 4 * identifier}
            steps = {**node("ListNode", [pair], "list"), "__id__": 1001 + 4 * identifier}
            state = {**node("DictNode", {"steps": steps}, "dict"), "__id__": 1002 + 4 * identifier}
            inner = {**schema, "content": state, "__id__": 1003 + 4 * identifier}
        schema.update(inner)

    return edit(change)


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit(99)",)


def archives() -> dict[str, bytes]:
    """Return archives that are damaged or dangerous."""
    raw, parts = honest(), members_of(honest())
    array = next(name for name in parts if name.endswith(".npy"))
    link = zipfile.ZipInfo("link.npy")
    link.external_attr = 0o120777 << 16
    fifo = zipfile.ZipInfo("fifo.npy")
    fifo.external_attr = 0o010644 << 16
    buffers = {}
    for name, member in {"link": link, "fifo": fifo}.items():
        buffer = io.BytesIO(raw)
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(member, b"/etc/passwd")
        buffers[f"a {name}"] = buffer.getvalue()
    cuts = {f"cut off after {size} bytes": raw[:size] for size in (0, 3, 21, 100, len(raw) // 2, len(raw) - 1)}
    names = ["../x.npy", "/etc/passwd", "C:\\x.npy", "a/b.npy", "a\\b.npy", ".hidden", "x\x00.npy", "ä.npy", "folder/",
             "x" * 300, "..", "-x.npy", "a b.npy"]  # fmt: skip
    return {
        **buffers, **cuts, **{f"a member {name[:12]!r}": renamed(name) for name in names},
        "no archive": b"no archive" * 10,
        "bytes before the archive": b"MZ" + raw,
        "bytes after the archive": raw + b"x",
        "a comment": end_record(raw, comment=5) + b"hello",
        "several parts": end_record(raw, disk=1),
        "more members than there are": end_record(raw, here=99, total=99),
        "64-bit numbers": end_record(raw, here=0xFFFF, total=0xFFFF),
        "a directory elsewhere": end_record(raw, offset=0),
        "a directory of another length": end_record(raw, length=1),
        "two members of one name": doubled(array),
        "two schemas": doubled(SCHEMA),
        "an encrypted member": with_directory(lambda member: setattr(member, "flag_bits", 1)),
        "bzip2": pack(parts, zipfile.ZIP_BZIP2),
        "lzma": pack(parts, zipfile.ZIP_LZMA),
        "another size": with_directory(lambda member: setattr(member, "file_size", member.file_size + 8)),
        "a size of 4 GiB": with_directory(lambda member: setattr(member, "file_size", 0xFFFF_FFF0)),
        "another checksum": with_directory(lambda member: setattr(member, "CRC", 1)),
        "a member that is not there": with_directory(lambda member: setattr(member, "header_offset", 1 << 30)),
        "a member at another one": with_directory(lambda member: setattr(member, "header_offset", 7)),
        "many members": pack({**{f"{i}.npy": b"" for i in range(33_000)}, **parts}),
        "a bomb": bomb(1 << 28),
        "a bomb within an archive": nested_bomb(1 << 28),
        "50 bombs within an archive": many_bombs(50, 30 << 20),
        "an array named 50 times": many_arrays(50, 30 << 20),
        "no schema": pack({name: part for name, part in parts.items() if name != SCHEMA}),
        "no array": pack({name: part for name, part in parts.items() if not name.endswith(".npy")}),
    }  # fmt: skip


def arrays() -> dict[str, bytes]:
    """Return files whose arrays are damaged, objects, or too large."""
    code = "__import__('os').system('touch ran')"
    return {
        "objects": with_array(npy(np.array([Runs()], object), allow_pickle=True)),
        "a pickle in place of an array": with_array(pickle.dumps(Runs())),
        "objects as numbers": with_array(described("(1, 3)", "'|O'", bytes(24))),
        "records": with_array(np.zeros(3, [("x", "f8")])),
        "records of objects": with_array(described("(3,)", "[('x', '|O')]", bytes(24))),
        "dates": with_array(np.zeros((1, 3), "M8[s]")),
        "complex numbers": with_array(np.zeros((1, 3), complex)),
        "bytes": with_array(np.zeros((1, 3), "S8")),
        "code in the header": with_array(npy_header(code)),
        "code in the shape": with_array(described(code)),
        "a header of parentheses": with_array(npy_header("(" * 4000)),
        "a header of a megabyte": with_array(npy_header(" " * (1 << 20), (2, 0))),
        "another version": with_array(npy_header("{}", (9, 0))),
        "a huge shape": with_array(described("(1, 1000000000000)")),
        "an overflowing shape": with_array(described("(4294967296, 4294967296)")),
        "a negative shape": with_array(described("(-1, 3)", body=bytes(24))),
        "a shape of floats": with_array(described("(1.0, 3)", body=bytes(24))),
        "many dimensions": with_array(described("(1, 1, 1, 1, 1, 1, 3)", body=bytes(24))),
        "too few bytes": with_array(described("(1, 3)", body=bytes(23))),
        "too many bytes": with_array(described("(1, 3)", body=bytes(25))),
        "a huge text": with_array(described("(1,)", "'<U1000000000'")),
        "NaN": with_array(np.array([[np.nan, 1, 2]])),
        "infinity": with_array(np.array([[np.inf, 1, 2]])),
        "texts in place of numbers": with_array(np.array([["a", "b", "c"]])),
        "another number of columns": with_array(np.zeros((1, 4))),
        "another number of classes": with_array(np.zeros((3, 3))),
        "a vector": with_array(np.zeros(3)),
        "no columns": with_array(np.zeros((1, 0))),
        "another bias": with_array(np.zeros(2), "intercept_"),
        "a scale of zero": with_array(np.zeros(3), "scale_", "StandardScaler"),
        "a scale of NaN": with_array(np.full(3, np.nan), "scale_", "StandardScaler"),
        "a scale of 10^-320": with_array(np.full(3, 1e-320), "scale_", "StandardScaler"),
        "another mean": with_array(np.zeros(2), "mean_", "StandardScaler"),
        "a number that is an array": with_array(np.zeros(3), "n_samples_seen_", "StandardScaler"),
        "two classes of one name": with_array(np.array(["a", "a"]), "classes_"),
        "one class": with_array(np.array(["a"]), "classes_"),
        "an empty class": with_array(np.array(["", "a"]), "classes_"),
    }


def schemas() -> dict[str, bytes]:
    """Return files whose schema is damaged or dangerous."""
    schema = members_of(honest())[SCHEMA]
    system = {"name": "system", "module": "posix"}
    attributes = node("DictNode", {}, "dict", key_types=node("ListNode", [], "list"))
    twice = schema.replace(b'"coef_":', b'"coef_": {}, "coef_":')
    return {
        "no JSON": with_schema(b"{"),
        "no UTF-8": with_schema(b'{"\xff": 1}'),
        "an empty schema": with_schema(b""),
        "a list": with_schema(b"[]"),
        "a number": with_schema(b"7"),
        "NaN in the schema": with_schema(b'{"protocol": NaN}'),
        "100,000 lists": with_schema(b"[" * 100_000 + b"]" * 100_000),
        "100,000 objects": with_schema(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "a schema of 60 MB": with_schema(b" " * 60_000_000 + schema),
        "a schema that is longer than its file": with_long_schema(),
        "700,000 objects": with_schema(b'{"protocol": 2, "x": [' + b'{"a":0},' * 700_000 + b"0]}"),
        "5,000,000 values": with_schema(b'{"protocol": 2, "x": [' + b"0," * 5_000_000 + b"0]}"),
        "2,000,000 objects": compact("[" + '{"a":9999},' * 2_000_000 + "0]"),
        "1,000,000 members": compact("{" + ",".join(f'"{i:x}":0' for i in range(1_000_000)) + "}"),
        "640,000 members": compact("{" + ",".join(f'"{i:x}":"{i}"' for i in range(640_000)) + "}"),
        "200 nodes within each other": with_state("coef_", nested(200)),
        "40 pipelines within each other": deep_pipeline(40),
        "a circle": circle(0),
        "a circle of ten nodes": circle(10),
        "no id": edit(lambda schema, _: schema.pop("__id__")),
        "an id that is a text": edit(lambda schema, _: schema.update(__id__="1")),
        "no protocol": edit(lambda schema, _: schema.pop("protocol")),
        **{
            f"protocol {p!r}": edit(lambda schema, _, p=p: schema.update(protocol=p))
            for p in (3, -1, True, "2", 1.5, None)
        },
        "a member twice": with_schema(twice),
        "a loader twice": with_schema(
            schema.replace(b'"__loader__": "ObjectNode"', b'"__loader__": "A", "__loader__": "ObjectNode"')
        ),
        "no loader": edit(lambda schema, _: schema.pop("__loader__")),
        "no module": edit(lambda schema, _: schema.pop("__module__")),
        "a function": with_root("FunctionNode", **system),
        "a method": with_root("MethodNode", {"func": "system", "obj": value(1)}, **system),
        "a partial call": with_root("PartialNode", {"func": node("FunctionNode", **system)}),
        "a constructor": with_root("ConstructorFromReduceNode", value("touch ran"), **system),
        "a reduced object": with_root("ReduceNode", attributes, **system),
        "an operator": with_root("OperatorFuncNode", value(1), "attrgetter", "operator"),
        "a class of another package": with_root("ObjectNode", attributes, **system),
        "a class of one name": edit(lambda schema, _: schema.update({"__module__": "evil.sklearn.pipeline"})),
        "a step of another package": edit(
            lambda schema, _: next(n for n in nodes(schema) if n["__class__"] == "StandardScaler").update(
                __module__="evil"
            )
        ),
        "no estimator": edit(lambda schema, _: schema.update(value(1))),
        "an array in place of an estimator": edit(
            lambda schema, _: schema.update(find(schema, "LogisticRegression")["coef_"])
        ),
        "no attributes": edit(lambda schema, _: schema.update(content=None)),
        "no coefficients": edit(lambda schema, _: find(schema, "LogisticRegression").pop("coef_")),
        "a list of coefficients": with_state("coef_", node("ListNode", [value(1)], "list")),
        "a file outside": with_state("coef_", node("NdArrayNode", type="numpy", file="../../etc/passwd")),
        "a file by its absolute name": with_state("coef_", node("NdArrayNode", type="numpy", file="/etc/passwd")),
        "a file that is a number": with_state("coef_", node("NdArrayNode", type="numpy", file=1)),
        "an unknown kind of array": with_state("coef_", node("NdArrayNode", type="pickle", file="x")),
        "an array of objects without a shape": with_state("classes_", node("NdArrayNode", [value(1)], type="json")),
        "an array of objects of another shape": with_state(
            "classes_",
            node("NdArrayNode", [value(1)], type="json", shape={**node("TupleNode", [value(9)])}),
        ),
        "JSON within JSON": with_state("solver", node("JsonNode", "[" * 10_000 + "]" * 10_000)),
        "a value that is no JSON": with_state("solver", node("JsonNode", "lbfgs")),
        "a value of two megabytes": with_state("solver", node("JsonNode", '"' + "x" * (2 << 20) + '"')),
        "a value without text": with_state("solver", node("JsonNode", 7)),
        "columns without end": with_state("n_features_in_", value(10**12), "StandardScaler"),
        "columns below zero": with_state("n_features_in_", value(-3), "StandardScaler"),
        "columns that are true": with_state("n_features_in_", value(True), "StandardScaler"),
        "columns as a text": with_state("n_features_in_", value("3"), "StandardScaler"),
        "steps that are a number": with_state("steps", value(3), "Pipeline"),
        "no steps": with_state("steps", node("ListNode", [], "list"), "Pipeline"),
        "steps without names": with_state("steps", node("ListNode", [value(1)], "list"), "Pipeline"),
        "keys without types": with_state(
            "vocabulary_", node("DictNode", {"a": value(0)}, "dict"), "CountVectorizer", "texts"
        ),
        "keys of an unknown type": with_state(
            "vocabulary_",
            node(
                "DictNode",
                {"a": value(0)},
                "dict",
                key_types={**node("ListNode", [node("TypeNode", **system)])},
            ),
            "CountVectorizer",
            "texts",
        ),
        "a vocabulary of texts": with_state("vocabulary_", value("terms"), "CountVectorizer", "texts"),
        "a pattern that is code": with_state("token_pattern", value("(a+)+$"), "CountVectorizer", "texts"),
        "n-grams of thousands": with_state(
            "ngram_range", node("TupleNode", [value(1), value(10**6)]), "CountVectorizer", "texts"
        ),
        "an analyzer that is a function": with_state(
            "analyzer", node("FunctionNode", **system), "CountVectorizer", "texts"
        ),
        "categories that are a number": with_state("categories_", value(7), "OneHotEncoder", "categories"),
        "categories of categories": with_state(
            "categories_", node("ListNode", [nested(3)], "list"), "OneHotEncoder", "categories"
        ),
        "categories to drop that are not there": with_state("drop_idx_", value(7), "OneHotEncoder", "categories"),
        "infrequent categories that are not there": with_state(
            "_infrequent_indices", node("ListNode", [value(1)], "list"), "OneHotEncoder", "categories"
        ),
    }


def pickles() -> dict[str, bytes]:
    """Return pickles in disguise."""
    return {
        **{f"a pickle of protocol {p}": pickle.dumps(Runs(), p) for p in range(6)},
        "a pickle as the schema": with_schema(pickle.dumps(Runs())),
        "a pickle with an archive behind it": pickle.dumps(Runs()) + honest(),
    }


def hostile_files() -> dict[str, bytes]:
    """Return all hostile files by what is wrong."""
    return {**archives(), **arrays(), **schemas(), **pickles()}
