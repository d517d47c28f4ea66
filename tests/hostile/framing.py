"""Hostile framing: request smuggling, chunks, lengths, pipelines, and bodies that stop."""

from tests.hostile.cases import HEALTH, PREDICT, ROWS, Case, Cases, answered, get

HIDDEN = get("/v1/models")
CHUNK = b"%x\r\n%b\r\n" % (len(ROWS), ROWS)
BODY = CHUNK + b"0\r\n\r\n"


def framed(body: bytes, *lines: str, version: str = "1.1") -> bytes:
    """Return a POST request with these headers, whatever they say about its body."""
    return get(PREDICT, *lines, method="POST").replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1) + body


def chunked(body: bytes, *lines: str) -> bytes:
    """Return a POST request with chunks."""
    return framed(body, "Transfer-Encoding: chunked", *lines)


def coded(value: str, body: bytes = BODY) -> bytes:
    """Return a POST request with this Transfer-Encoding."""
    return framed(body, f"Transfer-Encoding:{value}")


def sized(value: str, body: bytes = ROWS) -> bytes:
    """Return a POST request with this Content-Length."""
    return framed(body, f"Content-Length:{value}")


SIZE = len(ROWS)
LENGTHS: Cases = {
    **answered(
        400,
        {
            "both lengths": framed(BODY + HIDDEN, f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"),
            "both lengths, chunks first": framed(
                BODY + HIDDEN, "Transfer-Encoding: chunked", f"Content-Length: {len(BODY)}"
            ),
            "both lengths, short": framed(b"0\r\n\r\n" + HIDDEN, "Content-Length: 4", "Transfer-Encoding: chunked"),
            "two lengths": framed(ROWS + HIDDEN, f"Content-Length: {SIZE}", "Content-Length: 0"),
            "two equal lengths": framed(ROWS, f"Content-Length: {SIZE}", f"Content-Length: {SIZE}"),
            "a list of lengths": sized(f" {SIZE}, {SIZE}"),
            "length with a plus": sized(f" +{SIZE}"),
            "length below 0": sized(" -1"),
            "length in hexadecimal": sized(" 0x21"),
            "length with a fraction": sized(" 33.0"),
            "length with an exponent": sized(" 3e1"),
            "length with a space inside": sized(" 3 3"),
            "length with an underscore": sized(" 3_3"),
            "length in other digits": sized(" \xb2"),
            "length empty": sized(""),
            "length of 2^64": sized(f" {1 << 64}"),
            "length of 5,000 digits": sized(" " + "9" * 5000),
            "length, a space before the colon": framed(ROWS, f"Content-Length : {SIZE}"),
            "length, zero byte": sized(f" {SIZE}\0"),
            "length, vertical tab": sized(f"\x0b{SIZE}"),
        },
    ),
    **answered(
        413,
        {
            "length of 2^63 - 1": sized(f" {(1 << 63) - 1}"),
            "length of 2^40": sized(f" {1 << 40}"),
            "length of 4 MiB with a request in it": sized(f" {4 << 20}", HIDDEN),
        },
    ),
    **answered(
        200,
        {
            "length with zeros": sized(f" {SIZE:020}"),
            "length with spaces around": sized(f"  {SIZE} \t"),
            "a length without a body": get(HEALTH, "Content-Length: 0"),
        },
    ),
}

CHUNKS: Cases = {
    **answered(
        400,
        {
            "coding xchunked": coded(" xchunked"),
            "coding identity": coded(" identity"),
            "coding gzip": coded(" gzip"),
            "coding chunked, then identity": coded(" chunked, identity"),
            "coding with a vertical tab": coded(" \x0bchunked"),
            "coding in quotes": coded(' "chunked"'),
            "coding empty": coded(""),
            "a space before the colon": framed(BODY, "Transfer-Encoding : chunked"),
            "coding in a folded header": framed(BODY, "Transfer-Encoding:\r\n chunked"),
            "a second coding": chunked(BODY, "Transfer-Encoding: identity"),
            "chunk size empty": chunked(b"\r\n" + ROWS),
            "chunk size below 0": chunked(b"-1\r\n" + ROWS),
            "chunk size with 0x": chunked(b"0x21\r\n" + ROWS + b"\r\n0\r\n\r\n"),
            "chunk size no number": chunked(b"zz\r\n" + ROWS),
            "chunk size of 17 digits": chunked(b"1" + b"0" * 16 + b"\r\n" + ROWS),
            "chunk size of 5,000 digits": chunked(b"f" * 5000 + b"\r\n"),
            "chunk size with a space before": chunked(b" 21\r\n" + ROWS + b"\r\n0\r\n\r\n"),
            "chunk longer than its size": chunked(b"5\r\n" + ROWS + b"\r\n0\r\n\r\n"),
            "chunk without its end": chunked(b"%x\r\n%b0\r\n\r\n" % (SIZE, ROWS)),
            "chunk lines end with LF": chunked(BODY.replace(b"\r\n", b"\n")),
            "chunk extension with a bare CR": chunked(b"21;a\rb\r\n" + ROWS + b"\r\n0\r\n\r\n"),
            "chunk extension with zero bytes": chunked(b"21;\0\r\n" + ROWS + b"\r\n0\r\n\r\n"),
            "a length in the trailers": chunked(CHUNK + b"0\r\nContent-Length: 5\r\n\r\n"),
            "trailer without a colon": chunked(CHUNK + b"0\r\nx\r\n\r\n"),
        },
    ),
    **answered(
        200,
        {
            "coding in capitals": coded(" CHUNKED"),
            "chunks of one byte": chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in ROWS) + b"0\r\n\r\n"),
            "chunk size with zeros": chunked(b"0000000021\r\n" + ROWS + b"\r\n0\r\n\r\n"),
            "trailers that are ignored": chunked(CHUNK + b"0\r\nHost: evil\r\nX-API-Key: a\r\n\r\n"),
            "body that is a request": get(HEALTH, f"Content-Length: {len(HIDDEN)}") + HIDDEN,
        },
    ),
    **answered(
        415,
        {
            "wrong chunks after a refusal": chunked(b"zz\r\n" + ROWS, "Content-Type: application/xml"),
        },
    ),
    "chunk of 2^63 bytes": Case(chunked(b"7fffffffffffffff\r\n" + ROWS), (408,)),
    "chunks above the limit": Case(chunked(b"100000\r\n%b\r\n" % bytes(1 << 20) * 3), (413,)),
    "chunks that stop": Case(chunked(CHUNK), (408,)),
    "end of the chunks without its line": Case(chunked(CHUNK + b"0\r\n"), (408,)),
    "body that stops": Case(sized(f" {SIZE}", ROWS[:-1]), (408,)),
    "body longer than its length": Case(sized(f" {SIZE}", ROWS + b"garbage\r\n\r\n"), (200, 400)),
    "chunks of HTTP/1.0": Case(framed(BODY, "Transfer-Encoding: chunked", version="1.0"), (400,)),
    "body of a GET": Case(get(PREDICT, f"Content-Length: {SIZE}") + ROWS, (405,)),
    "100 requests at once": Case(get(HEALTH) * 100, (200,) * 100),
    "a request after one that closes": Case(get(HEALTH, "Connection: close") + HIDDEN, (200,)),
    "a request after a malformed one": Case(sized(" -1") + HIDDEN, (400,)),
    "Expect 100-continue": Case(framed(ROWS, f"Content-Length: {SIZE}", "Expect: 100-continue"), (100, 200)),
    "Expect something else": Case(framed(ROWS, f"Content-Length: {SIZE}", "Expect: 200-ok"), (200,)),
    "Expect for a body that never comes": Case(
        framed(b"", f"Content-Length: {SIZE}", "Expect: 100-continue"), (100, 408)
    ),
}

ALL: Cases = {**LENGTHS, **CHUNKS}
