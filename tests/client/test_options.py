"""Options of a client, from arguments and the environment; the key is never shown."""

import traceback
from typing import Any

import httpx2
import pytest
from softstep_client import APIConnectionError, InputError, Softstep

from tests.support.client_calls import make_client

KEY = "k-1234567890abcdef"


def test_the_url_comes_from_the_argument_the_environment_or_the_default(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order; a slash at the end is not part of it."""
    name = {"sync": "Softstep", "async": "AsyncSoftstep"}[kind]
    monkeypatch.setenv("SOFTSTEP_URL", " http://set:1/ ")
    for url, shown in (("https://given/path/", "https://given/path"), (None, "http://set:1")):
        client = make_client(kind, url)  # type: ignore[arg-type]
        assert repr(client) == f"{name}('{shown}')"
        client.close()
    monkeypatch.setenv("SOFTSTEP_URL", "")
    client = make_client(kind, None)  # type: ignore[arg-type]
    assert repr(client) == f"{name}('http://localhost:8000')"
    client.close()


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://user:secret@host",
        "http://host?a=1",
        "http://host#a",
        "http://host:99999",
        "http://host:x",
        "http://[::1",
        "http://ho st",
        "http://host\n",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """Its sentence does not repeat it, because it may have a password."""
    with pytest.raises(InputError) as refused:
        Softstep(url)
    assert url == "http://" or url not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1.0},
        {"timeout": float("inf")},
        {"timeout": float("nan")},
        {"timeout": "10"},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"api_key": "a\nb"},
        {"api_key": "schlüssel"},
        {"api_key": "a b"},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """Before any request, by the constructor and by `with_options`."""
    with pytest.raises(InputError):
        Softstep("http://host", **options)
    if "api_key" not in options:
        with Softstep("http://host") as client, pytest.raises(InputError):
            client.with_options(**options)


def test_the_key_is_sent_and_never_shown(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the Authorization header, and neither in the text of a client nor in that of an error."""
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["authorization"])
        raise httpx2.ConnectError("no")

    monkeypatch.setenv("SOFTSTEP_API_KEY", KEY)
    make = httpx2.Client if kind == "sync" else httpx2.AsyncClient
    http_client = make(transport=httpx2.MockTransport(answer))
    client = make_client(kind, "http://host", http_client=http_client, max_retries=0)
    with pytest.raises(APIConnectionError) as failed:
        client.predict("iris", [[1]])
    assert seen == [f"Bearer {KEY}"]
    texts = [repr(client), repr(failed.value), *traceback.format_exception(failed.value)]
    assert KEY not in "".join(texts)
    client.close()
    other = make_client(kind, "http://host", api_key="another", http_client=http_client, max_retries=0)
    with pytest.raises(APIConnectionError):
        other.models()
    assert seen[1:] == ["Bearer another"]
    other.close()


def test_a_given_client_of_httpx2_keeps_its_headers_and_stays_open() -> None:
    """Its own headers are sent too; the agent names the package."""
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers)
        return httpx2.Response(200, json={"models": []})

    with httpx2.Client(transport=httpx2.MockTransport(answer), headers={"X-Tenant": "blue"}) as http_client:
        with Softstep("http://host/prefix", http_client=http_client) as client:
            assert client.models() == []
        assert not http_client.is_closed
    assert seen[0]["x-tenant"] == "blue"
    assert seen[0]["user-agent"].startswith("softstep-client/")


def test_a_copy_with_other_options_shares_the_connections(kind: str) -> None:
    """It has its own timeout, and closing it leaves the first client open."""
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.extensions["timeout"]["read"])
        return httpx2.Response(200, json={"models": []})

    make = httpx2.Client if kind == "sync" else httpx2.AsyncClient
    client = make_client(kind, "http://host", http_client=make(transport=httpx2.MockTransport(answer)))
    client.with_options(timeout=3).models()
    client.with_options(max_retries=5).models()
    client.models()
    assert seen == [3.0, 10.0, 10.0]
    client.close()
