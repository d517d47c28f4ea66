"""Hostile heads: request lines, headers, other protocols, and targets."""

from tests.hostile.cases import HEALTH, PREDICT, ROWS, Case, Cases, answered, get, head, post

HOST = "Host: localhost"


def line(text: str) -> bytes:
    """Return a request with this request line."""
    return head(text, HOST)


def header(text: str) -> bytes:
    """Return a request with this header."""
    return get(HEALTH, text)


def predict(*lines: str) -> bytes:
    """Return a prediction with these headers."""
    return post(ROWS, *lines)


HELLO = bytes.fromhex("16030100a5010000a10303") + bytes(160)
FIRST_LINES: Cases = {
    **answered(
        400,
        {
            "TLS hello on a plain port": HELLO,
            "SSH banner": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "SMTP": b"EHLO softstep\r\n\r\n",
            "memcached": b"stats items\r\n\r\n",
            "Redis": b"*1\r\n$4\r\nPING\r\n",
            "zero bytes": bytes(4096),
            "bytes of 0xff": b"\xff" * 4096,
            "proxy protocol 1": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + get(HEALTH),
            "proxy protocol 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + get(HEALTH),
            "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "HTTP/0.9": b"GET /healthz\r\n\r\n",
            "HTTP/2.0": line("GET /healthz HTTP/2.0"),
            "HTTP/1.2": line("GET /healthz HTTP/1.2"),
            "HTTP/1.10": line("GET /healthz HTTP/1.10"),
            "HTTP/9.9": line("GET /healthz HTTP/9.9"),
            "HTTP in small letters": line("GET /healthz http/1.1"),
            "ICE": line("GET /healthz ICE/1.0"),
            "no target": line("GET HTTP/1.1"),
            "method in small letters": line("get /healthz HTTP/1.1"),
            "unknown method": line("SOFTSTEP /healthz HTTP/1.1"),
            "method of 5,000 letters": line("A" * 5000 + " /healthz HTTP/1.1"),
            "zero byte in the method": line("GE\0T /healthz HTTP/1.1"),
            "a space before the method": line(" GET /healthz HTTP/1.1"),
            "a tab in the request line": line("GET\t/healthz HTTP/1.1"),
            "a space in the target": line("GET /health z HTTP/1.1"),
            "zero byte in the target": line("GET /\0 HTTP/1.1"),
            "target not ASCII": line("GET /\xfc HTTP/1.1"),
            "target of control characters": line("GET /\x01\x1b HTTP/1.1"),
        },
    ),
    # The parser of HTTP knows RTSP too, and leaves its version in.
    **answered(404, {"RTSP": line("OPTIONS * RTSP/1.0"), "asterisk": line("GET * HTTP/1.1")}),
    **answered(405, {"TRACE": line(f"TRACE {HEALTH} HTTP/1.1"), "DELETE": line(f"DELETE {PREDICT} HTTP/1.1")}),
}

HEADERS: Cases = {
    **answered(
        400,
        {
            "two keys": get(HEALTH, "Authorization: Bearer a", "Authorization: Bearer b"),
            "no Host": head(f"GET {HEALTH} HTTP/1.1"),
            "two Hosts": header("Host: localhost"),
            "two different Hosts": header("host: other"),
            "Host with a path": head(f"GET {HEALTH} HTTP/1.1", "Host: softstep/a"),
            "Host with a user": head(f"GET {HEALTH} HTTP/1.1", "Host: a@softstep"),
            "Host with a space": head(f"GET {HEALTH} HTTP/1.1", "Host: soft step"),
            "Host not ASCII": head(f"GET {HEALTH} HTTP/1.1", "Host: s\xf6ftstep"),
            "Host with a wrong port": head(f"GET {HEALTH} HTTP/1.1", "Host: softstep:80a"),
            "Host of brackets": head(f"GET {HEALTH} HTTP/1.1", "Host: [::1"),
            "Host of a list": head(f"GET {HEALTH} HTTP/1.1", "Host: softstep, other"),
            "a space before the colon": header("X-A : 1"),
            "a space in a name": header("X A: 1"),
            "zero byte in a name": header("X\0A: 1"),
            "name not ASCII": header("X-\xfc: 1"),
            "name empty": header(": 1"),
            "no colon": header("X-A"),
            "zero byte in a value": header("X-A: a\0b"),
            "bare CR in a value": header("X-A: a\rb"),
            "control character in a value": header("X-A: a\x01b"),
            "folded header": header("X-A: a\r\n b"),
            "folded first header": head(f"GET {HEALTH} HTTP/1.1", " X-A: 1", HOST),
            "bare LF ends lines": get(HEALTH).replace(b"\r\n", b"\n"),
        },
    ),
    **answered(
        431,
        {
            "200 headers": get(HEALTH, *[f"X-{number}: 1" for number in range(200)]),
            "10,000 headers": get(HEALTH, *["A: b"] * 10_000),
            "a value of 40,000 bytes": header("X-A: " + "a" * 40_000),
            "a name of 40,000 bytes": header("A" * 40_000 + ": 1"),
            "a target of 40,000 bytes": get("/" + "a" * 40_000),
            "a query of 40,000 bytes": get(f"{PREDICT}?{'a' * 40_000}"),
            "a head that never ends": get(HEALTH)[:-2] + b"X-A: 1\r\n" * 6000,
        },
    ),
    **answered(
        200,
        {
            "an empty value": header("X-A:"),
            "a value not ASCII": header("X-A: \xfc\xff"),
            "empty lines first": b"\r\n\r\n" + get(HEALTH),
            "upgrade to h2c": get(
                HEALTH, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"
            ),
            "upgrade to a WebSocket": get(
                HEALTH,
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Key: YQ==",
                "Sec-WebSocket-Version: 13",
            ),
            "upgrade of a body": predict("Connection: Upgrade", "Upgrade: h2c"),
            "request id of control characters": header("X-Request-Id: a\tb"),
            "request id not ASCII": header("X-Request-Id: \xfc"),
            "request id of 20,000 bytes": header("X-Request-Id: " + "a" * 20_000),
            "forwarded for 500": header("X-Forwarded-For: " + ", ".join(["10.0.0.1"] * 500)),
            "forwarded host": get(
                HEALTH, "X-Forwarded-Host: evil", "X-Forwarded-Proto: javascript", "Forwarded: for=_;"
            ),
            "forwarded for spaces": header("Forwarded: for=a," + " " * 20_000 + "x"),
            "original URL": get(HEALTH, "X-Original-URL: /v1/models", "X-Rewrite-URL: /metrics"),
            "method override": get(HEALTH, "X-HTTP-Method-Override: DELETE"),
            "a range": header("Range: bytes=0-18446744073709551615"),
            "conditions": get(HEALTH, 'If-None-Match: "a"', "If-Modified-Since: never"),
            "1,000 cookies": header("Cookie: " + "; ".join(["a=b"] * 1000)),
            "Accept of NaN": predict("Accept: text/csv;q=nan, application/json;q=inf"),
            "Accept of 5,000 commas": predict("Accept: " + "," * 5000),
            "unknown charset": predict("Content-Type: application/json; charset=utf-7"),
            "Connection names Host": get(HEALTH, "Connection: host, authorization"),
        },
    ),
    **answered(
        415,
        {
            "Content-Type XML": predict("Content-Type: application/xml"),
            "Content-Type of a form with files": predict("Content-Type: multipart/form-data; boundary=a"),
            "Content-Type pickle": predict("Content-Type: application/x-pickle"),
            "Content-Type not ASCII": predict("Content-Type: \xfc"),
            "Content-Type of 20,000 bytes": predict("Content-Type: " + "a/" * 10_000),
        },
    ),
    **answered(
        403,
        {
            "a page of another site": predict("Origin: https://evil.example"),
            "a page without an origin": predict("Origin: null"),
            "a page without an origin, over HTTPS": predict("Sec-Fetch-Site: cross-site"),
        },
    ),
    "a proxy request": Case(line("CONNECT softstep:443 HTTP/1.1"), (405,)),
    "a head that stops": Case(get(HEALTH)[:-3], (408,)),
    "one byte": Case(b"G", (408,)),
    "nothing": Case(b"\r\n", ()),
}

ALL: Cases = {**FIRST_LINES, **HEADERS}
