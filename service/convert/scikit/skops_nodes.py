"""The nodes of a skops file's schema as plain values.

Each node is a JSON object that names its class and how it is stored:

    __loader__        its value
    JsonNode          JSON text of a number, a text, a boolean or null
    ListNode          `content`, a list of nodes; also TupleNode and SetNode
    DictNode          `content`, nodes by key, and the type of each key in `key_types`
    NdArrayNode       an array: a member .npy of the archive, or of objects a list of nodes with `shape`
    SparseMatrixNode  a sparse matrix: a member .npz of arrays
    ObjectNode        an object: the node of its attributes in `content`
    SliceNode         a slice

Any other node, and what an object's attributes do not need, is a class name without attributes. Nothing is imported.
`__id__` is the same where skops met one object twice; a node within a node of its own id would be a circle.
"""

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.convert.archives.npy_array import parse_npy
from service.convert.archives.zip_archive import ZipArchive
from service.convert.scikit.plain_object import PlainObject, PlainValue
from service.errors import ConversionError

# Pipelines nest some twenty nodes.
DEPTH_MAX: Final = 64
# Two nodes for each term of a vocabulary; larger vocabularies are converted in memory.
NODES_MAX: Final = 1_000_000
JSON_CHARACTERS_MAX: Final = 1 << 20

Node = Mapping[str, Any]

KEY_TYPES: Final[Mapping[str, Callable[[str], Any]]] = {
    "str": str,
    "str_": str,
    "int": int,
    "int32": int,
    "int64": int,
    "float": float,
    "float64": float,
}


class NodeState(Mapping[str, PlainValue]):
    """The attributes of an object, each read when it is asked for."""

    def __init__(self, nodes: "NodeReader", members: Mapping[str, Node], path: tuple[int, ...]) -> None:
        self._nodes: Final = nodes
        self._members: Final = members
        self._path: Final = path

    def __getitem__(self, name: str) -> PlainValue:
        """Return an attribute as a plain value."""
        return self._nodes.to_value(self._members[name], self._path)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._members)

    def __len__(self) -> int:
        """Return the number of attributes."""
        return len(self._members)


class NodeReader:
    """Converts nodes to plain values.

    Args:
        archive: The archive with the arrays.
    """

    def __init__(self, archive: ZipArchive) -> None:
        self._archive: Final = archive
        self._count = 0
        self._loaders: Final[Mapping[str, Callable[[Node, tuple[int, ...]], PlainValue]]] = {
            "DictNode": self._read_dict,
            "JsonNode": _read_json,
            "ListNode": self._read_list,
            "NdArrayNode": self._read_array,
            "ObjectNode": self._read_object,
            "SetNode": self._read_list,
            "SliceNode": _read_slice,
            "SparseMatrixNode": self._read_sparse,
            "TupleNode": lambda node, path: tuple(self._read_list(node, path)),
        }

    def to_value(self, node: Any, path: tuple[int, ...] = ()) -> PlainValue:  # noqa: ANN401  # anything in a file
        """Return the value of a node.

        Args:
            node: The node.
            path: The ids of the nodes around it.

        Raises:
            ConversionError: The node is damaged or a circle, or there are too many.
        """
        self._count += 1
        if self._count > NODES_MAX or len(path) > DEPTH_MAX:
            raise ConversionError(f"the schema has more than {NODES_MAX} nodes, or {DEPTH_MAX} within each other")
        members = _members(node)
        identifier = members.get("__id__")
        if not isinstance(identifier, int) or isinstance(identifier, bool):
            raise ConversionError("a node of the schema has no id")
        if identifier in path:
            raise ConversionError("a node of the schema contains itself")
        loader = self._loaders.get(_text(members, "__loader__"))
        return _name_class(members) if loader is None else loader(members, (*path, identifier))

    def _read_list(self, node: Node, path: tuple[int, ...]) -> list[PlainValue]:
        return [self.to_value(one, path) for one in _listed(node, "content")]

    def _read_dict(self, node: Node, path: tuple[int, ...]) -> dict[Any, PlainValue]:
        members = _members(node.get("content"))
        kinds = [_text(_members(one), "__class__") for one in _listed(_members(node.get("key_types")), "content")]
        if len(kinds) != len(members) or not KEY_TYPES.keys() >= set(kinds):
            raise ConversionError("a dictionary of the schema has keys of unknown types")
        try:
            keys = [KEY_TYPES[kind](key) for kind, key in zip(kinds, members, strict=True)]
        except ValueError:
            raise ConversionError("a dictionary of the schema has a key of another type than it says") from None
        if len(set(keys)) < len(keys):
            raise ConversionError("a dictionary of the schema has a key twice")
        return {key: self.to_value(one, path) for key, one in zip(keys, members.values(), strict=True)}

    def _read_object(self, node: Node, path: tuple[int, ...]) -> PlainObject:
        named = _name_class(node)
        content = node.get("content")
        if content is None:
            return named
        members = _members(content)
        if members.get("__loader__") != "DictNode":
            return named
        identifier = members.get("__id__")
        if identifier in path or not isinstance(identifier, int):
            raise ConversionError("a node of the schema contains itself")
        attributes = _members(members.get("content"))
        return PlainObject(named.package, named.name, NodeState(self, attributes, (*path, identifier)))

    def _read_array(self, node: Node, path: tuple[int, ...]) -> PlainValue:
        if node.get("type") == "json":
            return self._read_objects(node, path)
        if node.get("type") != "numpy":
            raise ConversionError("an array of the schema is stored in an unknown way")
        array = parse_npy(self._archive.read(_text(node, "file")))
        if node.get("__class__") == "ndarray":
            return array
        if array.ndim:
            raise ConversionError("a number of the schema is an array")
        return array[()]

    def _read_objects(self, node: Node, path: tuple[int, ...]) -> NDArray[Any]:
        """Return an array of objects, of one or two dimensions."""
        shape = self.to_value(node.get("shape"), path)
        values = self._read_list(node, path)
        if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ConversionError("an array of the schema has no shape")
        flat = values if len(shape) == 1 else [one for row in values for one in (row if isinstance(row, list) else [])]
        if not 1 <= len(shape) <= 2 or math.prod(shape) != len(flat):  # noqa: PLR2004  # a vector or a matrix
            raise ConversionError("an array of the schema has another shape than its values")
        array = np.empty(len(flat), object)
        array[:] = flat
        return array.reshape(shape)

    def _read_sparse(self, node: Node, _: tuple[int, ...]) -> PlainObject:
        """Return the arrays of a sparse matrix by name."""
        archive = ZipArchive(io.BytesIO(self._archive.read(_text(node, "file"))), within=self._archive)
        suffix = ".npy"
        arrays = {
            name.removesuffix(suffix): parse_npy(archive.read(name))
            for name in archive.names
            if name != f"format{suffix}"
        }
        named = _name_class(node)
        return PlainObject(named.package, named.name, arrays)


def _members(node: Any) -> dict[str, Any]:  # noqa: ANN401  # anything in a file
    """Return a JSON object.

    Raises:
        ConversionError: It is something else.
    """
    if not isinstance(node, dict):
        raise ConversionError("a node of the schema is no JSON object")
    return node


def _listed(node: Node, name: str) -> list[Any]:
    listed = node.get(name)
    if not isinstance(listed, list):
        raise ConversionError("a list of the schema is missing")
    return listed


def _text(node: Node, name: str) -> str:
    text = node.get(name)
    if not isinstance(text, str):
        raise ConversionError("a node of the schema lacks a text")
    return text


def _name_class(node: Node) -> PlainObject:
    """Return the class of a node without attributes; only the first part of its module counts."""
    package = _text(node, "__module__").partition(".")[0]
    return PlainObject(package, _text(node, "__class__"), {})


def _read_json(node: Node, _: tuple[int, ...]) -> PlainValue:
    text = _text(node, "content")
    if len(text) > JSON_CHARACTERS_MAX or text.lstrip()[:1] in {"[", "{"}:
        raise ConversionError("a value of the schema is too long, or neither a number nor a text")
    try:
        return json.loads(text)
    except ValueError:
        raise ConversionError("a value of the schema is no JSON") from None


def _read_slice(node: Node, _: tuple[int, ...]) -> slice:
    ends = _members(node.get("content"))
    parts = [ends.get(name) for name in ("start", "stop", "step")]
    if not all(part is None or isinstance(part, int) for part in parts):
        raise ConversionError("a slice of the schema has ends that are no whole numbers")
    return slice(*parts)
