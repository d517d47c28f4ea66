"""The Host header, the version and the method of a request."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.serve.host_header import is_host, is_loopback_host
from tests.support.api_keys import add_key, bearer
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import instances, request
from tests.support.server_pair import Pair

V1 = "/v1/models/iris:predict"
BODY = instances([[5.1, 3.5, 1.4, 0.2]])
VALID = [
    "", "a", "localhost:8000", "127.0.0.1", "a.example:", "A_b-c.d~e", "%41", "a!$&'()*+,;=", "[::1]", "[::1]:80",
    "[2001:db8::1]", "[::ffff:1.2.3.4]", "[v1.a:b]", "1.2.3", "..", ":80",
]  # fmt: skip
INVALID = [
    "a b", "a/b", "a@b", "user@a", "http://a", "a?b", "a#b", "a\\b", "a:b", "a:80:80", "a:-1", "a: 80", "[::1", "::1",
    "[::1]a", "[:::]", "[1.2.3.4]", "[]", "[g::]", "[::1%25eth0]", "[v.a]", "[v1.]", "%4", "%zz", 'a"', "<a>", "a|b",
    "a\tb", "ü", "a,\tb", "[::1]:x", "{a}", "a^", "a`",
]  # fmt: skip
LOOPBACK = [
    "localhost", "LocalHost:8000", "localhost.", "a.localhost", "a.b.LOCALHOST.:1", "127.0.0.1", "127.0.0.1:",
    "127.255.255.254:8000", "[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]", "[0::0001]:80",
]  # fmt: skip
# Those that a page's name could be, and those that are loopback for some resolvers only.
ELSEWHERE = [
    "", ":80", "a", "softstep:8000", "a.example", "localhost.example", "localhost.a:8000", "notlocalhost",
    "localhost..", "127.0.0.1.example", "127.0.0.1.nip.io", "10.0.0.1", "0.0.0.0:8000", "128.0.0.1:8000", "127.1",
    "127.0.0.01", "2130706433", "0x7f.0.0.1", "%6cocalhost", "localhost%2e", "[::]", "[::2]", "[fe80::1]",
    "[::ffff:127.0.0.1]", "[v1.localhost]",
]  # fmt: skip
HOSTS = st.from_regex(r"[A-Za-z0-9._~!$&'()*+,;=-]*(:[0-9]*)?", fullmatch=True)
BAD = st.sampled_from(
    [bytes([byte]) for byte in range(256) if byte <= 32 or byte >= 127 or chr(byte) in '"#/<>?@\\^`{|}']
)


@pytest.mark.parametrize("value", VALID)
def test_a_host_with_or_without_a_port_is_valid(value: str) -> None:
    assert is_host(value.encode())


@pytest.mark.parametrize("value", INVALID)
def test_anything_else_is_no_host(value: str) -> None:
    assert not is_host(value.encode("latin-1"))


@given(value=HOSTS, bad=BAD, place=st.integers(0, 99))
def test_a_byte_outside_the_grammar_makes_a_host_invalid(value: str, bad: bytes, place: int) -> None:
    """Wherever it stands."""
    text = value.encode()
    assert is_host(text)
    assert not is_host(text[:place] + bad + text[place:])


def lines(target: str, *hosts: str, version: str = "1.1", method: str = "POST") -> bytes:
    """A prediction with these Host lines."""
    head = [f"{method} {target} HTTP/{version}", *(f"Host: {host}" for host in hosts), f"Content-Length: {len(BODY)}"]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + BODY


async def refused(client: ClientConnection, data: bytes) -> Response:
    """Return the refusal of a request, after which the connection must end."""
    await client.send(data)
    answer = await client.read()
    assert await client.ended()
    return answer


TARGETS = pytest.mark.parametrize("target", [V1, f"{V1}?cold", "/unknown", f"http://other{V1}"])


@TARGETS
@pytest.mark.parametrize("hosts", [(), ("a", "a"), ("a", "b"), ("", ""), *((value,) for value in INVALID[:8])])
def test_a_request_without_one_valid_host_is_malformed(pair: Pair, target: str, hosts: tuple[str, ...]) -> None:
    """The response is 400, and the connection ends."""
    answer = pair.talk(lambda client: refused(client, lines(target, *hosts)))
    assert (answer.status, answer.json["code"]) == (400, "malformed_http")


@pytest.mark.parametrize("hosts", [("a", "a"), ("a b",)])
def test_an_old_request_may_leave_out_the_host(pair: Pair, hosts: tuple[str, ...]) -> None:
    """HTTP/1.0 needs no Host; several or an invalid one are malformed there too."""
    assert pair.talk(lambda client: refused(client, lines(V1, *hosts, version="1.0"))).status == 400
    assert pair.ask(lines(V1, version="1.0"))[0].status == 200


@TARGETS
@pytest.mark.parametrize("version", ["2.0", "0.9", "1.2", "3", "1.10", "7.7", "1.1 "])
def test_any_other_version_is_malformed(pair: Pair, target: str, version: str) -> None:
    """The response is 400; a client that can speak HTTP/2 must not start with it."""
    answer = pair.talk(lambda client: refused(client, lines(target, "a", version=version)))
    assert (answer.status, answer.json["code"]) == (400, "malformed_http")


@pytest.fixture(scope="module")
def open_pair(models: Path) -> Iterator[Pair]:
    """A service that answers everyone."""
    with Pair(models, open=True) as running:
        yield running


@pytest.mark.parametrize("value", VALID)
def test_a_valid_host_is_served(open_pair: Pair, value: str) -> None:
    """Each of two requests on a connection, the second by its remembered head."""
    assert [answer.status for answer in open_pair.ask(lines(V1, value), lines(V1, value))] == [200, 200]


@pytest.mark.parametrize("value", LOOPBACK)
def test_loopback_hosts_are_known(value: str) -> None:
    """Names of this machine, in any case, with or without a port and a last dot."""
    assert is_host(value.encode())
    assert is_loopback_host(value.encode())


@pytest.mark.parametrize("value", ELSEWHERE)
def test_other_hosts_are_not_loopback(value: str) -> None:
    """They are valid hosts, and name another machine."""
    assert is_host(value.encode())
    assert not is_loopback_host(value.encode())


@given(value=st.one_of(HOSTS, st.ip_addresses(v=6).map(lambda address: f"[{address}]")))
def test_every_valid_host_is_loopback_or_not(value: str) -> None:
    """No valid host is an error, and without the names and addresses of loopback none is loopback."""
    if is_loopback_host(value.encode()):
        assert "localhost" in value.lower() or value.startswith(("127.", "[::1]"))


@pytest.mark.parametrize("value", ELSEWHERE)
def test_a_service_without_keys_refuses_other_hosts(pair: Pair, value: str) -> None:
    """A call, a probe and an unknown path get 421 and the connection ends, also after a head that is remembered."""
    pair.ask(lines(V1, "localhost"), lines(V1, "localhost"))
    for data in (lines(V1, value), lines("/unknown", value), lines("/healthz", value, method="GET"),
                 lines(V1, value, version="1.0")):  # fmt: skip
        answer = pair.talk(lambda client, data=data: refused(client, data))
        assert (answer.status, answer.json["code"]) == (421, "host_not_permitted")


@pytest.mark.parametrize("value", LOOPBACK)
def test_a_service_without_keys_serves_loopback_hosts(pair: Pair, value: str) -> None:
    """Each of two requests on a connection, the second by its remembered head."""
    assert [answer.status for answer in pair.ask(lines(V1, value), lines(V1, value))] == [200, 200]
    assert pair.ask(lines("/v1/models", value, method="GET"))[0].status == 200


def test_a_service_with_keys_serves_any_host(models: Path, tmp_path: Path) -> None:
    """Once there is a key, the key decides and not the name: a page of another name does not have it."""
    with Pair(models, data=tmp_path) as pair:
        data = lines(V1, "a.example")
        assert pair.talk(lambda client: refused(client, data)).status == 421
        key = add_key(tmp_path / "keys.json")
        authorizer = pair.worker.authorizer
        pair.loop.call_soon_threadsafe(lambda: authorizer.use(authorizer.read_changed()))
        named = data.replace(b"\r\n\r\n", f"\r\n{': '.join(bearer(key))}\r\n\r\n".encode())
        assert [answer.status for answer in pair.ask(data, named, named)] == [401, 200, 200]


KEPT = [("Connection", "keep-alive")]


@pytest.mark.parametrize("target", [V1, f"{V1}?cold", "/unknown", "/healthz"])
def test_an_old_connection_is_kept_on_request(pair: Pair, target: str) -> None:
    """HTTP/1.0 with keep-alive is answered with keep-alive, again and again; without, the connection ends."""
    method, body = ("GET", None) if target == "/healthz" else ("POST", BODY)
    kept = request(method, target, body, KEPT, version="1.0")
    unnamed = kept.replace(b"X-Request-Id: test\r\n", b"")

    async def talk(client: ClientConnection) -> list[Response]:
        answers = [await client.ask(data) for data in (kept, unnamed, unnamed, unnamed, kept)]
        answers.append(await client.ask(request(method, target, body, version="1.0")))
        assert await client.ended()
        return answers

    answers = pair.talk(talk)
    assert [answer.header("connection") for answer in answers] == ["keep-alive"] * 5 + ["close"]
    assert len({(answer.status, answer.body) for answer in answers}) == 1


def test_a_new_connection_is_kept_in_silence(pair: Pair) -> None:
    """HTTP/1.1 keeps connections anyway, so its answers do not say so."""
    assert pair.ask(request("POST", V1, BODY, KEPT))[0].header("connection") is None
