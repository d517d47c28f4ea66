"""The OpenAPI document is complete, and its examples are what the service takes and answers."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.serve.api.schemas.schema_types import IRIS_FEATURES
from service.serve.error_codes import ERROR_CODES, SOME_REFUSED
from service.store.log.events import SEQ_MAX
from tests.support.api_document import api_document
from tests.support.http_requests import request
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
JSON = "application/json"
# Members of responses that differ from run to run.
VOLATILE = {"feedback_tokens", "id", "seq", "epoch", "version", "last_inference", "ns", "count", "inference_count"}
# Codes of examples that repeat one another's ids, or that an earlier example has forgotten or rolled back.
REFUSALS = {"id_taken", "seq_moved", "unknown_id", "forgotten", "rolled_back"}
# Calls whose examples would disturb the service that the other examples are sent to.
UNLOAD = "/v2/repository/models/{name}/unload"


class Call(NamedTuple):
    """One call of the document."""

    path: str
    method: str
    operation: dict[str, Any]

    @property
    def target(self) -> str:
        """The path of the call for version 1 of iris."""
        return self.path.replace("{name}", "iris").replace("{version}", "1")

    @property
    def requests(self) -> dict[str, Any]:
        """The examples of the JSON request body."""
        return examples(self.operation["requestBody"]["content"][JSON]) if "requestBody" in self.operation else {}


def examples(content: dict[str, Any]) -> dict[str, Any]:
    """Return the examples of a body by name."""
    return {name: example["value"] for name, example in content.get("examples", {}).items()}


DOCUMENT = api_document()
SCHEMAS = DOCUMENT["components"]["schemas"]
# The schemas of the document, without members that they do not name: responses have no others.
CLOSED = {
    name: {"additionalProperties": False, **schema} if "properties" in schema else schema
    for name, schema in SCHEMAS.items()
}
ALL = [Call(path, method, one) for path, calls in DOCUMENT["paths"].items() for method, one in calls.items()]
POSTS = [call for call in ALL if call.method == "post" and call.path != UNLOAD]


def title(call: Call) -> str:
    """Return the name of a call for test ids."""
    return str(call.operation["operationId"])


def validator(schema: dict[str, Any]) -> Any:
    """Return a validator of a schema of the document, which refuses members that it does not name."""
    return jsonschema_rs.validator_for({**schema, "components": {"schemas": CLOSED}})


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema object below a value."""
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from nodes(child)


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the shipped models that takes the examples."""
    with serving(SHIPPED, tmp_path_factory.mktemp("examples"), SOFTSTEP_DEFAULT_MODEL="iris") as running:
        yield running


# Completeness


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_property_has_a_description(name: str) -> None:
    """Each component and each of its properties is described."""
    assert SCHEMAS[name].get("description"), name
    properties = [one for node in nodes(SCHEMAS[name]) for one in node.get("properties", {}).items()]
    assert [key for key, schema in properties if not schema.get("description")] == []


@pytest.mark.parametrize("call", ALL, ids=title)
def test_every_body_has_examples_that_validate(call: Call) -> None:
    """Each request and response body has an example, each JSON one fits its schema, and each parameter is described."""
    bodies = [*call.operation["responses"].values(), *filter(None, [call.operation.get("requestBody")])]
    for body in bodies:
        for kind, content in body.get("content", {}).items():
            values = examples(content)
            assert values or "example" in content, body
            if kind == JSON:
                schema = validator(content["schema"])
                assert [name for name, value in values.items() if not schema.is_valid(value)] == []
    assert all(response["description"] for response in call.operation["responses"].values())
    assert all(parameter.get("description") for parameter in call.operation.get("parameters", ()))


@pytest.mark.parametrize("call", ALL, ids=title)
def test_errors_stand_at_their_statuses(call: Call) -> None:
    """Each error example has a code of the table, under the status that the table gives; 422 is 400 on v2 paths."""
    for status, response in call.operation["responses"].items():
        for name, value in examples(response.get("content", {}).get(JSON, {})).items():
            if "error" in value:
                code = value["reason"] if name == SOME_REFUSED else value["code"]
                expected = ERROR_CODES[code].status
                assert int(status) == (400 if expected == 422 and call.path.startswith("/v2") else expected)
                assert value["code"] == name


def test_the_document_has_no_errors_of_the_framework() -> None:
    """FastAPI's own error models are absent, every reference resolves, and every operation id is used once."""
    text = json.dumps(DOCUMENT)
    assert "ValidationError" not in text
    references = {node["$ref"] for node in nodes(DOCUMENT) if isinstance(node.get("$ref"), str)}
    assert {reference.rpartition("/")[2] for reference in references} <= set(SCHEMAS)
    assert len({title(call) for call in ALL}) == len(ALL)


@pytest.mark.parametrize("call", ALL, ids=title)
def test_the_scope_of_each_call_is_named(call: Call) -> None:
    """A call that needs a scope names it, accepts a key in both ways, and documents both refusals; others do not."""
    documented = {"401", "403"} & call.operation["responses"].keys()
    schemes = [name for option in call.operation.get("security", ()) for name in option]
    named = re.findall("requires the scope `([a-z]+)`", call.operation["description"])
    if "401" not in documented:
        assert (documented, schemes, named) == (set(), [], [])
        return
    assert schemes == list(DOCUMENT["components"]["securitySchemes"])
    if call.path == "/v1/key":  # answers any key
        assert (documented, named) == ({"401"}, [])
        return
    assert len(documented) == 2
    refusal = examples(call.operation["responses"]["403"]["content"][JSON])["scope_missing"]["error"]
    assert refusal == f"The key has no scope {named[0]}; use one that has it."


def test_authorize_sends_the_key_where_the_service_reads_it(service: Service) -> None:
    """The page at /docs offers the two schemes of the document, and its policy lets it call this service."""
    document = httpx.get(f"{service.url}/openapi.json").json()
    bearer, key = document["components"]["securitySchemes"].values()
    assert (bearer["type"], bearer["scheme"]) == ("http", "bearer")
    assert (key["type"], key["in"], key["name"].lower()) == ("apiKey", "header", "x-api-key")
    assert "connect-src 'self'" in httpx.get(f"{service.url}/docs").headers["content-security-policy"]


def test_limits_are_those_of_the_code(service: Service) -> None:
    """The seq of a query goes up to the log's last one, and the server's address is relative to the document."""
    document = httpx.get(f"{service.url}/openapi.json").json()
    assert document["servers"] == [{"url": "./"}]
    served = httpx.get(f"{service.url}/v1/models").json()["models"]
    rows = {f"Row.{one['name']}" for one in served if one["state"] == "READY"}
    schemas = document["components"]["schemas"]
    assert schemas.keys() - SCHEMAS.keys() == rows
    assert {name: schema for name, schema in schemas.items() if name not in rows} == SCHEMAS
    seq, too_large = (
        httpx.get(f"{service.url}/v1/models/iris/weights", params={"seq": n}) for n in (SEQ_MAX, SEQ_MAX + 1)
    )
    assert (seq.json()["code"], too_large.json()["code"]) == ("seq_not_found", "invalid_parameter")
    assert too_large.json()["error"] == f'"seq" must be the seq of an event, an integer from 0 to {SEQ_MAX}.'


@pytest.mark.parametrize("query", ["wait=yes", "wait=", "wait=2"])
def test_a_wrong_query_is_refused(service: Service, query: str) -> None:
    """The sentence names the parameter."""
    response = httpx.post(f"{service.url}/v1/models/iris:rollback?{query}", json={"seq": 0})
    assert response.status_code == 422
    assert response.json() == {"error": '"wait" must be true or false.', "code": "invalid_parameter"}


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        (":rollback", {}, f'"seq" must be the seq of an event, an integer from 0 to {SEQ_MAX}.'),
        (":rollback", {"seq": True}, f'"seq" must be the seq of an event, an integer from 0 to {SEQ_MAX}.'),
        (
            ":rollback",
            {"seq": 0, "secret": 1},
            'The body has an unknown field, "secret"; known fields are id, if_seq, seq.',
        ),
        (":rollback", {"seq": 0, "id": "é" * 65}, '"id" must be a text of 1 to 128 bytes.'),
        (":configure", {}, 'The body must have one of "rule", "constants", "paused" and "shadow".'),
        (":configure", {"paused": 1}, '"paused" must be true or false.'),
        (":configure", {"constants": {"rate": 1}}, '"constants" are those of a "rule"; name it too.'),
        (":classes", {"add": []}, '"add" must be a list of at least one class name of 1 to 256 characters.'),
        (":forget", {"ids": [""]}, '"ids" must be a list of 1 to 100000 ids of feedback, each of 1 to 128 bytes.'),
    ],
)
def test_a_wrong_admin_body_is_refused(service: Service, path: str, body: Any, sentence: str) -> None:
    """The sentence names the member and says what it must be."""
    response = httpx.post(f"{service.url}/v1/models/iris{path}", json=body)
    assert (response.status_code, response.json()) == (422, {"error": sentence, "code": "invalid_request"})


# Truth


def stable(value: Any) -> Any:
    """Return a response without the members that differ from run to run."""
    if isinstance(value, dict):
        return {key: stable(one) for key, one in value.items() if key not in VOLATILE}
    return [stable(one) for one in value] if isinstance(value, list) else value


def check_conforms(call: Call, response: httpx.Response) -> None:
    """Hold a response to the document: its status, its type and its body."""
    documented = call.operation["responses"][str(response.status_code)]
    if "content" not in documented:
        assert response.content == b""
        return
    kind = response.headers["content-type"].partition(";")[0]
    content = documented["content"][kind]
    if kind == JSON:
        assert validator(content["schema"]).is_valid(response.json()), response.text


@pytest.mark.parametrize("call", [call for call in ALL if call.method == "get"], ids=title)
def test_every_get_answers_as_documented(learning: Service, call: Call) -> None:
    """A GET of iris is answered with 200 and a body that fits the schema."""
    response = httpx.get(learning.url + call.target)
    assert response.status_code == 200
    check_conforms(call, response)


TEXTS = [
    (call, kind)
    for call in POSTS
    for kind in call.operation.get("requestBody", {}).get("content", {})
    if kind not in {JSON, "application/octet-stream"}
]


@pytest.mark.parametrize(("call", "kind"), TEXTS, ids=[f"{title(call)} {kind}" for call, kind in TEXTS])
def test_every_text_example_is_answered_as_documented(learning: Service, call: Call, kind: str) -> None:
    """Each example of text is taken, and answered as JSON and as CSV; the first row has the example's answer."""
    responses = call.operation["responses"]["200"]["content"]
    for body in examples(call.operation["requestBody"]["content"][kind]).values():
        for accept in (JSON, "text/csv"):
            headers = {"Content-Type": kind, "Accept": accept}
            response = httpx.post(learning.url + call.target, content=body, headers=headers)
            assert response.status_code == 200
            check_conforms(call, response)
        assert response.text.startswith(examples(responses["text/csv"])["one row"])


@pytest.mark.parametrize("call", POSTS, ids=title)
def test_every_request_example_is_answered_as_documented(learning: Service, call: Call) -> None:
    """Each example is taken, and the response is the example of the same name where the document has one."""
    assert call.requests
    for name, body in call.requests.items():
        response = httpx.post(learning.url + call.target, json=body, timeout=20)
        if "{version}" not in call.path and response.status_code < 300:
            shown = examples(call.operation["responses"][str(response.status_code)]["content"][JSON])
            if name in shown and not call.path.endswith(("index", ":feedback")):
                assert stable(response.json()) == stable(shown[name])
        assert response.status_code < 300 or response.json()["code"] in REFUSALS
        check_conforms(call, response)


def object_schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects that a body may be."""
    if "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    if "properties" in schema:
        yield schema
    for one in schema.get("anyOf", ()):
        yield from object_schemas(one)


@pytest.mark.parametrize("call", POSTS, ids=title)
def test_every_optional_member_may_be_null(learning: Service, call: Call) -> None:
    """An example with all its other members null fits the document, and has the status of the example alone."""
    schema = call.operation["requestBody"]["content"][JSON]["schema"]
    tried = 0
    for body in call.requests.values():
        fitting = [one for one in object_schemas(schema) if validator(one).is_valid(body)]
        for one in fitting:
            nulls = dict.fromkeys(one["properties"].keys() - body.keys() - set(one.get("required", ())))
            assert validator(one).is_valid(nulls | body)
            # A class can be added once.
            sent = [body, nulls | body]
            if "add" in body:
                sent = [each | {"add": [f"{title(call)} {i}"]} for i, each in enumerate(sent)]
            plain, other = (httpx.post(learning.url + call.target, json=each) for each in sent)
            assert other.status_code == plain.status_code
            assert plain.status_code < 300 or other.json()["code"] == plain.json()["code"]
            tried += len(nulls)
        assert fitting
    assert tried or call.path.endswith(("/index", ":trajectory"))  # the examples of these calls have every member


ROWS = st.lists(st.lists(st.integers(-9, 9) | st.floats(-9, 9), min_size=4, max_size=4), min_size=1, max_size=2)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.just("x"),
        "shape": st.sampled_from([[1, 4], [2, 4], [1, 3]]),
        "datatype": st.sampled_from(["FP32", "INT8", "BYTES"]),
        "data": st.just(ROW),
    },
    optional={"parameters": st.none() | st.just({"x": 1}), "x": st.none()},
)
# A tensor for each feature; few are not accepted.
COLUMNS = st.permutations(IRIS_FEATURES).flatmap(
    lambda names: st.tuples(
        *(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from([name] * 9 + ["x"]),
                    "shape": st.sampled_from([[1], [1, 1]]),
                    "datatype": st.sampled_from(["FP64", "INT8", "BOOL"]),
                    "data": st.sampled_from([[1], [0], [[1]]]),
                }
            )
            for name in names
        )
    )
)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "instances": ROWS | st.lists(st.lists(st.integers(-9, 9), max_size=5), max_size=2),
    "labels": st.lists(st.sampled_from(["setosa", 1, 7, [0.5, 0.5, 0.0]]), min_size=1, max_size=2),
    "top": st.integers(0, 5),
    "min_seq": st.sampled_from([0, -1, True]),
    "id": st.text(max_size=3),
    "weights": st.lists(st.sampled_from([1.0, 0.0]), max_size=2),
    "logits": st.lists(st.lists(st.none() | st.floats(-9, 9), min_size=2, max_size=2), max_size=2),
    "head": st.sampled_from(["softmax", "sigmoid", "x"]),
    "model_name": st.sampled_from(["iris", "iris", None, "x"]),
    "inputs": st.lists(TENSORS, min_size=1, max_size=2) | COLUMNS,
    "outputs": st.lists(
        st.fixed_dictionaries({"name": st.sampled_from(["probabilities", "labels", "logits", "x"])}), max_size=3
    ),
}
# The members of each call's body; the first is always sent.
USUAL = {
    ":predict": ("instances", "min_seq"),
    ":explain": ("instances", "labels", "top", "min_seq"),
    ":feedback": ("instances", "labels", "id", "weights"),
    "/convert": ("logits", "head"),
    "/infer": ("inputs", "outputs", "id", "model_name"),
}


def bodies(names: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """Return bodies with the usual members of a call, and sometimes another one."""
    first, *rest = names
    usual = st.fixed_dictionaries({first: MEMBERS[first]}, optional={name: MEMBERS[name] for name in rest})
    other = st.sampled_from(sorted(MEMBERS)).flatmap(lambda name: st.fixed_dictionaries({name: MEMBERS[name]}))
    return st.builds(lambda one, two: one | two, usual, st.just({}) | other)


FAST = [
    (call, ending) for call in ALL for ending in USUAL if call.path.endswith(ending) and "/versions/" not in call.path
]


@pytest.mark.parametrize(("call", "ending"), FAST, ids=[title(call) for call, _ in FAST])
def test_every_answer_of_the_fast_path_fits_the_document(pair: Pair, call: Call, ending: str) -> None:
    """The bytes that the handlers write fit the models, good answers and refusals alike, on both paths."""

    @given(body=bodies(USUAL[ending]))
    @settings(max_examples=60, deadline=None)
    def fits(body: dict[str, Any]) -> None:
        for fast in (True, False):
            (answer,) = pair.ask(request("POST", call.target, json.dumps(body).encode()), fast=fast)
            check_conforms(call, httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body))

    fits()
