"""Load and unload requests as the parent records them."""

import orjson

from service.process.shared_memory import PAGE_BYTES
from service.process.unload_list import LOADS_MAX
from service.serve.models.load_unload import LoadRequests


def line(do: str, name: str) -> bytes:
    """Return the line that a worker writes."""
    return orjson.dumps({"slot": 1, "token": 2, "do": do, "name": name})


def test_a_line_changes_the_list() -> None:
    """An unload adds the name; a load removes it; changes are numbered; slot and token come back."""
    requests = LoadRequests()
    slot, token, page = requests.apply_line(line("unload", "iris"))
    assert (slot, token, orjson.loads(page)) == (1, 2, {"number": 1, "unloaded": ["iris"], "loads": []})
    requests.apply_line(line("load", "digits"))
    _, _, page = requests.apply_line(line("load", "iris"))
    assert orjson.loads(page) == {"number": 3, "unloaded": [], "loads": [[2, "digits"], [3, "iris"]]}


def test_the_list_always_fits_its_page() -> None:
    """Also with as many long names as are taken, and loads after them."""
    requests = LoadRequests()
    for number in range(2000):
        requests.apply_line(line("unload", f"{number:064}"))
    for number in range(2000, 2000 + LOADS_MAX + 1):
        _, _, page = requests.apply_line(line("load", f"{number:064}"))
        assert len(page) <= PAGE_BYTES
    assert len(orjson.loads(page)["unloaded"]) > 900
