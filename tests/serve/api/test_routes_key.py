"""A client asks what its key permits."""

from itertools import combinations
from pathlib import Path

from service.access.scopes import Scope
from tests.support.api_keys import add_key, bearer
from tests.support.http_requests import request
from tests.support.server_pair import Pair

ALL = ["predict", "feedback", "admin"]


def ask(pair: Pair, *headers: tuple[str, str]) -> tuple[int, object]:
    """Return the status, and the body or its code."""
    (answer,) = pair.ask(request("GET", "/v1/key", None, headers))
    return answer.status, answer.json if answer.status == 200 else answer.json["code"]


def test_without_keys_everything_is_permitted(pair: Pair) -> None:
    """A service without keys requires none, and ignores one that is sent."""
    for headers in ([], [bearer("wrong")]):
        assert ask(pair, *headers) == (200, {"required": False, "scopes": ALL})


def test_a_key_is_answered_its_own_scopes(models: Path, tmp_path: Path) -> None:
    """Any valid key may ask, also one for some models; without one the answer is 401."""
    file = tmp_path / "keys.json"
    combined = [scopes for size in (1, 2, 3) for scopes in combinations(Scope, size)]
    keys = {scopes: add_key(file, *scopes) for scopes in combined}
    limited = add_key(file, Scope.FEEDBACK, models=("absent",))
    with Pair(models, keys_file=file) as pair:
        for scopes, key in keys.items():
            assert ask(pair, bearer(key)) == (200, {"required": True, "scopes": [str(scope) for scope in scopes]})
        assert ask(pair, bearer(limited)) == (200, {"required": True, "scopes": ["feedback"]})
        assert ask(pair) == (401, "key_missing")
        assert ask(pair, bearer("wrong")) == (401, "key_invalid")
