"""Names in the metadata of a graph, as the export writes them: JSON lists of texts."""

import json
from typing import Final

from service.convert.graphs.graph_parser import Graph

OWN_PRODUCER: Final = "softstep "


def read_names(graph: Graph, key: str) -> tuple[str, ...]:
    """Return the names that a graph has for its classes or features; empty if it has none."""
    try:
        names = json.loads(graph.metadata.get(key, "[]"))
    except (ValueError, RecursionError):
        return ()
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list and graph.producer.startswith(OWN_PRODUCER) else ()
