"""Every route has a scope, and a request without it is refused before its body arrives, whichever path answers it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi.routing import iter_route_contexts
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.access.api_key import make_key
from service.access.principal import ANYONE
from service.access.scopes import Scope
from service.serve.api.app import make_app
from service.serve.api.scoped_route import ScopedRoute
from service.serve.authorization.route_scopes import (
    OF_ALL_MODELS,
    OF_DEFAULT_MODEL,
    OF_NO_MODEL,
    ROUTE_SCOPES,
    ROUTE_SETTINGS,
)
from service.serve.models.endpoint import FEEDBACK
from tests.support.api_document import api_document
from tests.support.api_keys import add_key, bearer
from tests.support.budgets import examples
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import instances, request
from tests.support.paths import ROOT
from tests.support.scripts import load_script
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
VERTEX, HEALTH = "/vertex/predict", "/vertex/health"
OPEN = {
    "/", "/healthz", "/readyz", "/health", "/ping", "/version", "/v2", "/v2/", "/v2/health/live", "/v2/health/ready",
    "/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/favicon-32x32.png",
    "/openapi.json", "/console/{file}", HEALTH,
}  # fmt: skip
ANY_KEY = "/v1/key"
ADMIN = (":classes", ":correct", ":forget", ":rollback", ":configure", "/weights", "/events", "/load", "/unload")
GARBAGE = b"0123456789"
BOTH = pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])


class Route(NamedTuple):
    """One method and path of the application, and the function that answers."""

    method: str
    path: str
    function: str

    @property
    def scope(self) -> Scope | None:
        """The scope that the path should have, or None if it is open."""
        if self.path in OPEN or self.path == ANY_KEY:
            return None
        if self.path.endswith(ADMIN):
            return Scope.ADMIN
        return Scope.FEEDBACK if self.path.endswith(":feedback") else Scope.PREDICT

    @property
    def is_of_model(self) -> bool:
        """Whether a key that is limited to some models may be refused."""
        return "{name" in self.path or self.path in {"/invocations", VERTEX, "/metrics"}

    @property
    def target(self) -> str:
        """The path for version 1 of iris."""
        return self.path.replace("{name:name}", "iris").replace("{version:name}", "1").replace("{file}", "app.js")

    @property
    def documented(self) -> str:
        """The path in the OpenAPI document."""
        return self.path.replace(":name}", "}")


class Keys(NamedTuple):
    """Keys of a service, and their file: by the scopes that they have, and others."""

    file: Path
    by_scopes: dict[tuple[Scope, ...], str]
    of_iris: str
    of_others: str
    expired: str

    @property
    def whole(self) -> str:
        """The key that may do everything."""
        return self.by_scopes[tuple(Scope)]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Keys of each combination of scopes, of some models, and one that has expired."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    combined = [scopes for size in (1, 2, 3) for scopes in combinations(Scope, size)]
    return Keys(
        path,
        {scopes: add_key(path, *scopes) for scopes in combined},
        add_key(path, models=("iris", "no such *")),
        add_key(path, models=("iris-*", "t*s", "x")),
        add_key(path, expires=datetime.now(UTC) - timedelta(seconds=1)),
    )


@pytest.fixture(scope="module")
def locked(models: Path, keys: Keys) -> Iterator[Pair]:
    """A server with keys, and every optional route."""
    chosen = {"default_model": "iris", "predict_route": VERTEX, "health_route": HEALTH, "cors_origins": ("*",)}
    with Pair(models, keys_file=keys.file, **chosen) as running:
        yield running


@pytest.fixture(scope="module")
def routes(locked: Pair) -> list[Route]:
    """Every route of the application."""
    app = make_app(locked.worker.context, locked.worker.counters)
    found = []
    for context in iter_route_contexts(app.router.routes):
        assert isinstance(context.original_route, ScopedRoute), context.path
        assert context.methods
        assert context.path
        found += [Route(method, context.path, context.original_route.endpoint.__name__) for method in context.methods]
    return found


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The paths of the OpenAPI document."""
    paths: dict[str, Any] = api_document()["paths"]
    return paths


def ask_head(pair: Pair, route: Route, headers: list[tuple[str, str]], *, fast: bool) -> Response:
    """Send the head of a request, which declares a body that is never sent, and read the response."""
    data = request(route.method, route.target, GARBAGE, headers).removesuffix(GARBAGE)

    async def talk(client: ClientConnection) -> Response:
        return await client.ask(data)

    return pair.talk(talk, fast=fast)


def ask(pair: Pair, route: Route, headers: list[tuple[str, str]], *, fast: bool) -> Response:
    """Send a request whose body no call accepts."""
    body = None if route.method == "GET" else GARBAGE
    return pair.ask(request(route.method, route.target, body, headers), fast=fast)[0]


def check_shown(document: dict[str, Any], route: Route, answer: Response) -> None:
    """Check that the document has a refusal as an example of its call."""
    if route.path != VERTEX:
        shown = document[route.documented][route.method.lower()]["responses"][str(answer.status)]
        examples = shown["content"]["application/json"]["examples"]
        assert examples[answer.json["code"]]["value"] == answer.json


# The table


def test_every_route_has_a_scope(routes: list[Route]) -> None:
    """Each route of the application has the scope that its path should have, and the table has no other one."""
    assert {route.path for route in routes} >= OPEN | {VERTEX, "/invocations", "/metrics"}
    for route in routes:
        assert ROUTE_SCOPES[route.function] == route.scope, route
    assert {route.function for route in routes} == ROUTE_SCOPES.keys()
    assert ROUTE_SETTINGS.keys() <= ROUTE_SCOPES.keys()


def test_every_call_says_which_models_it_is_for(routes: list[Route]) -> None:
    """A call names a model in its path, is for the default one or for all, or is listed as being for none."""
    for route in routes:
        named, listed = "{name" in route.path, OF_NO_MODEL | OF_ALL_MODELS | OF_DEFAULT_MODEL
        assert route.scope is None or named != (route.function in listed), route


def test_a_route_without_a_scope_cannot_be_made() -> None:
    """A new call whose scope was forgotten fails when its route is made."""

    async def forgotten() -> None:
        """Answer."""

    with pytest.raises(KeyError, match="forgotten"):
        ScopedRoute("/forgotten", forgotten)


def test_the_fast_path_has_the_scopes_of_its_routes(locked: Pair, routes: list[Route]) -> None:
    """Each path of the fast path has a route with the same scope, and each probe has an open one."""
    by_target = {route.target: route for route in routes}
    endpoints = locked.worker.registry.now.fast_endpoints
    ours = {path.decode(): endpoint for path, endpoint in endpoints.items() if b"/iris" in path}
    assert len(ours) == 16
    for path, endpoint in ours.items():
        expected = Scope.FEEDBACK if endpoint.kind == FEEDBACK else Scope.PREDICT
        assert by_target[path].scope is expected
    assert {by_target[path.decode()].scope for path in locked.worker.shared.probes} == {None}


def test_the_page_on_security_has_every_scope() -> None:
    """If this fails, run `python docs/write_scopes.py`."""
    page = ROOT / "docs" / "security.md"
    assert load_script("docs/write_scopes.py").page(page.read_text()) == page.read_text()


# Requests


@BOTH
@pytest.mark.parametrize("kind", ["none", "another scheme", "unknown", "no key", "expired"])
def test_nothing_is_answered_without_a_valid_key(
    locked: Pair, routes: list[Route], keys: Keys, document: dict[str, Any], kind: str, *, fast: bool
) -> None:
    """Each route that is not open answers 401 before its body arrives, as the document shows; all others answer."""
    headers = {
        "none": [],
        "another scheme": [("Authorization", f"Basic {keys.whole}")],
        "unknown": [bearer(make_key().text)],
        "no key": [("X-API-Key", "secret")],
        "expired": [bearer(keys.expired)],
    }[kind]
    code = "key_missing" if kind in {"none", "another scheme"} else "key_invalid"
    for route in routes:
        if route.path in OPEN:
            assert ask(locked, route, headers, fast=fast).status == 200, route
            continue
        answer = ask_head(locked, route, headers, fast=fast)
        assert (answer.status, answer.json["code"]) == (401, code), route
        assert str(answer.header("www-authenticate")).startswith('Bearer realm="softstep"')
        check_shown(document, route, answer)
        if route.method == "GET":
            (bare,) = locked.ask(request("HEAD", route.target, None, headers), fast=fast)
            assert (bare.status, bare.body) == (401, b"")


@BOTH
def test_a_key_permits_its_scopes_alone(
    locked: Pair, routes: list[Route], keys: Keys, document: dict[str, Any], *, fast: bool
) -> None:
    """Of every combination of scopes, each call with another one answers 403 before its body arrives."""
    for scopes, key in keys.by_scopes.items():
        for route in routes:
            if route.scope is None:
                continue
            if route.scope in scopes:
                assert ask(locked, route, [bearer(key)], fast=fast).status not in {401, 403}, (scopes, route)
                continue
            answer = ask_head(locked, route, [bearer(key)], fast=fast)
            assert (answer.status, answer.json["code"]) == (403, "scope_missing"), (scopes, route)
            check_shown(document, route, answer)


@BOTH
def test_a_key_permits_its_models_alone(
    locked: Pair, routes: list[Route], keys: Keys, document: dict[str, Any], *, fast: bool
) -> None:
    """A key of other models gets 403 from each call of iris, and one of iris only from the metrics of all models."""
    for route in routes:
        if route.scope is None:
            continue
        refused = ask_head(locked, route, [bearer(keys.of_others)], fast=fast) if route.is_of_model else None
        if refused is None:
            assert ask(locked, route, [bearer(keys.of_others)], fast=fast).status not in {401, 403}, route
        else:
            assert (refused.status, refused.json["code"]) == (403, "model_not_permitted"), route
            check_shown(document, route, refused)
        status = ask(locked, route, [bearer(keys.of_iris)], fast=fast).status
        assert (status in {401, 403}) == (route.path == "/metrics"), route


@BOTH
def test_the_key_is_looked_at_before_the_size(locked: Pair, keys: Keys, *, fast: bool) -> None:
    """A body that is too large gets 401 or 403 before it gets 413, and 413 before its type gets 415."""
    size = ("Content-Length", str(locked.settings.body_bytes_max + 1))
    for path in ("/v1/models/iris:predict", "/v2/models/iris/infer", "/invocations", "/v1/models/iris:rollback"):
        for credentials, status in (([], 401), ([bearer(keys.of_others)], 403), ([bearer(keys.whole)], 413)):
            data = request("POST", path, None, [size, ("Content-Type", "image/png"), *credentials])
            assert locked.ask(data, fast=fast)[0].status == status, path


@BOTH
def test_a_refusal_does_not_tell_which_models_exist(
    locked: Pair, routes: list[Route], keys: Keys, *, fast: bool
) -> None:
    """Without a key that permits it, a model that is served and one that is not are refused by the same bytes."""
    for route in routes:
        if "{name" not in route.path:
            continue
        unknown = route._replace(path=route.path.replace("{name:name}", "absent"))
        for headers in ([], [bearer(keys.of_others)]):
            answers = [ask_head(locked, one, headers, fast=fast) for one in (route, unknown)]
            assert answers[0] == answers[1], route


@BOTH
def test_lists_have_the_permitted_models_alone(locked: Pair, keys: Keys, *, fast: bool) -> None:
    """The list of models, the repository's index and the statistics leave all others out."""

    def listed(key: str) -> list[set[str]]:
        asked = [("GET", "/v1/models"), ("POST", "/v2/repository/index"), ("GET", "/v2/models/stats")]
        answers = [locked.ask(request(*one, headers=[bearer(key)]), fast=fast)[0].json for one in asked]
        rows = [answers[0]["models"], answers[1], answers[2]["model_stats"]]
        return [{row["name"] for row in some} for some in rows]

    assert listed(keys.of_iris) == [{"iris"}] * 3
    assert listed(keys.of_others) == [{"tags"}] * 3
    whole = listed(keys.whole)
    assert len(whole[0]) > 5
    assert whole[1:] == [whole[0]] * 2


@pytest.mark.parametrize("default", [None, "absent", "iris"])
def test_a_default_model_is_looked_for_after_the_key(models: Path, keys: Keys, default: str | None) -> None:
    """A sender without the scope, or for other models, does not learn whether there is a default model."""
    expected = {None: "model_not_named", "absent": "model_not_found", "iris": None}[default]
    with Pair(models, keys_file=keys.file, default_model=default, predict_route=VERTEX) as running:
        for path, fast in product(("/invocations", VERTEX), (True, False)):
            route = Route("POST", path, "")
            assert ask_head(running, route, [], fast=fast).status == 401
            teacher = keys.by_scopes[Scope.FEEDBACK,]
            assert ask_head(running, route, [bearer(teacher)], fast=fast).json["code"] == "scope_missing"
            if default is not None:
                answer = ask_head(running, route, [bearer(keys.of_others)], fast=fast)
                assert answer.json["code"] == "model_not_permitted"
            (permitted,) = running.ask(request("POST", path, instances([ROW]), [bearer(keys.whole)]), fast=fast)
            assert permitted.json.get("code") == expected


@pytest.mark.parametrize("access", ["open", "key"])
def test_settings_open_metrics_and_documentation(models: Path, keys: Keys, access: str) -> None:
    """Metrics need a key for all models with the scope predict, the documentation any key, or neither needs one."""
    chosen = dict.fromkeys(("metrics_access", "docs_access", "openapi_access"), access)
    paths = ("/metrics", "/openapi.json", "/docs", "/docs/start.js", "/docs/swagger-ui.css")
    teacher = keys.by_scopes[Scope.FEEDBACK,]
    with Pair(models, keys_file=keys.file, **chosen) as running:

        def statuses(*headers: tuple[str, str]) -> list[int]:
            return [running.ask(request("GET", path, headers=headers))[0].status for path in paths]

        assert statuses(bearer(keys.whole)) == [200] * len(paths)
        if access == "open":
            assert statuses() == statuses(bearer("wrong")) == [200] * len(paths)
        else:
            assert statuses() == statuses(bearer(keys.expired)) == [401] * len(paths)
            assert statuses(bearer(teacher)) == statuses(bearer(keys.of_iris)) == [403, *[200] * (len(paths) - 1)]


def test_without_keys_every_route_is_open(pair: Pair) -> None:
    """A service without keys reads no credential."""
    for headers in ([], [bearer("wrong")], [("X-API-Key", "wrong")]):
        for path in ("/metrics", "/v1/models", "/v1/models/iris", "/docs", "/v1/models/iris/weights"):
            assert pair.ask(request("GET", path, headers=headers))[0].status == 200
    assert pair.worker.authorizer.is_open
    assert ANYONE.actor == ""


# Both paths

TARGETS = [
    "/v1/models/iris:predict", "/v1/models/iris/versions/1:predict", "/v1/models/iris/versions/9:predict",
    "/v1/models/%69ris:predict", "/v1/models/iris%3Apredict", "/v1/models/iris%2Fversions%2F1:predict",
    "/v1/models/IRIS:predict", "/v1/models/iris%20:predict", "/v1/models/iris%00:predict", "/v1/models/*:predict",
    "/v1/models/iris:predict/", "/v1/models/iris:predict?name=tags", "http://softstep/v1/models/iris:predict",
    "//v1/models/iris:predict", "/v1/models/tags/../iris:predict", "/v1/models/tags%2F..%2Firis:predict",
    "/v1/models/tags:predict", "/v1/models/absent:predict", "/v1/models/iris:feedback", "/v1/models/iris:explain",
    "/v2/models/iris/infer", "/v2/models/iris", "/v1/models/iris", "/v1/models", "/v1/models/iris:rollback",
    "/v1/models/iris:feedback?wait=true", "/invocations", "/v1/convert", "/healthz", "/unknown",
]  # fmt: skip
KINDS = ("whole", "predict", "of_iris", "of_others", "expired", "unknown", "empty")
CREDENTIALS = st.tuples(
    st.sampled_from(["Authorization", "AUTHORIZATION", "X-API-Key", "x-api-key"]),
    st.sampled_from(["Bearer {}", "bEARER  {} ", "Basic {}", "{}", "Bearer", "Bearer {}, Bearer {}", "{} {}"]),
    st.sampled_from(KINDS),
)


def test_both_paths_decide_alike(locked: Pair, keys: Keys) -> None:
    """Whatever the target and the credentials, both paths give the same bytes, and none without one valid key."""
    texts = {
        "whole": keys.whole, "predict": keys.by_scopes[Scope.PREDICT,], "of_iris": keys.of_iris,
        "of_others": keys.of_others, "expired": keys.expired, "unknown": make_key().text, "empty": "",
    }  # fmt: skip

    @given(
        method=st.sampled_from(["POST", "POST", "POST", "GET", "HEAD", "OPTIONS", "PUT"]),
        target=st.sampled_from(TARGETS),
        credentials=st.lists(CREDENTIALS, max_size=3),
    )
    @example("POST", TARGETS[0], [("Authorization", "Bearer {}", "whole"), ("Authorization", "Bearer {}", "whole")])
    @example("POST", TARGETS[0], [("X-API-Key", "{}", "unknown"), ("X-API-Key", "{}", "whole")])
    @example("POST", TARGETS[0], [("X-API-Key", "{}", "unknown"), ("Authorization", "Bearer {}", "whole")])
    @example("POST", TARGETS[0], [("X-API-Key", "{}", "whole"), ("Authorization", "Bearer {}", "unknown")])
    @settings(max_examples=examples(150), deadline=None)
    def agree(method: str, target: str, credentials: list[tuple[str, str, str]]) -> None:
        headers = [(name, form.format(texts[kind], texts[kind])) for name, form, kind in credentials]
        body = None if method in {"GET", "HEAD"} else GARBAGE
        data = request(method, target, body, headers)
        if len({name.lower() for name, _ in headers}) < len(headers):  # refused by the protocol, which parses the head
            assert locked.ask(data)[0].status == 400
            return
        fast, plain = (locked.ask(data, fast=one)[0] for one in (True, False))
        assert fast == plain
        if target not in {"/healthz", "/unknown"} and not is_valid(headers, {*texts.values()} - {texts["expired"]}):
            assert fast.status in {401, 404, 405}
            assert fast.status != 404 or "code" not in fast.body.decode() or fast.json["code"] == "not_found"

    agree()


def is_valid(headers: list[tuple[str, str]], known: set[str]) -> bool:
    """Whether headers carry a key that may be valid: X-API-Key counts before Authorization."""
    fields = {name.lower(): value.strip() for name, value in headers}
    bearer_value = fields.get("authorization", "")
    key = bearer_value[7:].strip() if bearer_value[:7].lower() == "bearer " else ""
    return fields.get("x-api-key", key) in known - {""}


def test_a_remembered_head_is_of_its_key(locked: Pair, keys: Keys) -> None:
    """Requests over one connection are answered by the key of each, though their heads are remembered."""

    def post(*headers: tuple[str, str]) -> bytes:
        return request("POST", TARGETS[0], instances([ROW]), headers).replace(b"X-Request-Id: test\r\n", b"")

    good, other, wrong = (post(bearer(key)) for key in (keys.whole, keys.of_others, keys.expired))
    order = [good, good, wrong, good, other, good, post(), good]
    expected = [200, 200, 401, 200, 403, 200, 401, 200]
    assert [answer.status for answer in locked.ask(*order)] == expected
