"""Load and unload requests as the parent records them, and which models a worker reads again."""

import orjson

from service.process.shared_memory import PAGE_BYTES
from service.serve.models.load_unload import LOADS_MAX, LoadRequests, loads_since


def line(do: str, name: str) -> bytes:
    """Return the line that a worker writes."""
    return orjson.dumps({"slot": 1, "token": 2, "do": do, "name": name})


def test_a_line_changes_the_list() -> None:
    """An unload adds the name; a load removes it and is numbered; slot and token come back."""
    requests = LoadRequests()
    slot, token, page = requests.apply_line(line("unload", "iris"))
    assert (slot, token, orjson.loads(page)) == (1, 2, {"unloaded": ["iris"], "loads": []})
    requests.apply_line(line("load", "digits"))
    _, _, page = requests.apply_line(line("load", "iris"))
    assert orjson.loads(page) == {"unloaded": [], "loads": [[1, "digits"], [2, "iris"]]}


def test_the_list_always_fits_its_page() -> None:
    """Also with as many long names as are taken, and loads after them."""
    requests = LoadRequests()
    for number in range(2000):
        requests.apply_line(line("unload", f"{number:064}"))
    for number in range(2000, 2000 + LOADS_MAX + 1):
        _, _, page = requests.apply_line(line("load", f"{number:064}"))
        assert len(page) <= PAGE_BYTES
    assert len(orjson.loads(page)["unloaded"]) > 900


def test_models_that_were_asked_for_are_read_again() -> None:
    """A worker that has missed older requests than the list remembers reads all models again."""
    loads = [(number, f"m{number}") for number in range(5, 8)]
    assert [name for name in ("m5", "m6", "m7", "other") if loads_since(loads, 5)(name)] == ["m6", "m7"]
    assert loads_since(loads, 4)("m5")
    assert not loads_since(loads, 4)("other")
    assert loads_since(loads, 3)("other")
    assert not loads_since([], 0)("other")
