"""Hostile bodies that are not JSON: CSV, JSON Lines, and content codings."""

import gzip
import zlib

from service.serve.wire.content_decoder import zstd
from tests.hostile.cases import ROWS, Cases, answered, post, post_json
from tests.support.json_numbers import CANARY

CSV = "Content-Type: text/csv"
LINES = "Content-Type: application/jsonlines"
# Decoded bytes far above the limit of the tested service.
BOMB = bytes(64 << 20)


def csv(text: bytes | str, parameters: str = "") -> bytes:
    """Return a CSV body to the default model."""
    return post(text, CSV + parameters, path="/invocations")


def lines(text: bytes | str) -> bytes:
    """Return JSON Lines to the default model."""
    return post(text, LINES, path="/invocations")


def coded(coding: str, body: bytes) -> bytes:
    """Return a body that claims a content coding."""
    return post(body, f"Content-Encoding: {coding}")


def split(table: object) -> bytes:
    """Return MLflow's split form of a table."""
    return post_json({"dataframe_split": table}, "/invocations")


GZIP = gzip.compress(ROWS)
TABLES: Cases = {
    **answered(
        400,
        {
            "CSV: empty": csv(b""),
            "CSV: open quote": csv('5.1,3.5,1.4,"0.2\n'),
            "CSV: text after a quote": csv('"5.1"x,3.5,1.4,0.2\n'),
            "CSV: latin-1": csv("5.1,3.5,1.4,ü\n".encode("latin-1")),
            "CSV: UTF-16": csv("5.1,3.5,1.4,0.2\n".encode("utf-16")),
            "JSON Lines: empty": lines(b""),
            "JSON Lines: no JSON": lines(CANARY),
            "JSON Lines: 5,000 levels": lines("[" * 5000),
            "JSON Lines: repeated key": lines('{"features":[1,2,3,4],"features":[1,2,3,4]}'),
            "JSON Lines: a byte of 0xff": lines(b"[1,2,3,4]\n\xff\n"),
        },
    ),
    **answered(
        422,
        {
            "CSV: 2,900 digits and a letter": csv("1" * 2900 + "x,3.5,1.4,0.2\n"),
            "CSV: zero byte": csv("5.1,3.5,1.4,\0\n"),
            "CSV: formula": csv('=cmd|"/c calc",3.5,1.4,0.2\n'),
            "CSV: 1e999": csv("1e999,3.5,1.4,0.2\n"),
            "CSV: nan": csv("nan,3.5,1.4,0.2\n"),
            "CSV: underscore": csv("1_0,3.5,1.4,0.2\n"),
            "CSV: digits of another script": csv("\u0661,3.5,1.4,0.2\n"),
            "CSV: header only": csv("a,b,c,d\n"),
            "CSV: wrong header": csv("a,b,c,d\n1,2,3,4\n", "; header=present"),
            "CSV: too wide": csv("1,2,3,4,5\n"),
            "CSV: empty cells": csv(",,,\n"),
            "JSON Lines: narrow": lines("[1]\n[1]\n"),
            "JSON Lines: text": lines(f'"{CANARY}"\n'),
            "split: no columns": split({}),
            "split: columns of numbers": split({"columns": [1, 2, 3, 4], "data": [[1, 2, 3, 4]]}),
            "split: data a text": split({"columns": ["a"] * 4, "data": CANARY}),
            "split: a list": split([1]),
            "records: a text": post_json({"dataframe_records": CANARY}, "/invocations"),
            "inputs: columns of lists": post_json({"inputs": {"a": [[[[1]]]]}}, "/invocations"),
        },
    ),
    **answered(
        413,
        {
            "CSV: a line of 400,000 characters": csv("1" * 400_000),
            "CSV: 400,000 empty lines": csv("\n" * 400_000),
            "JSON Lines: 70,000 rows": lines("[1,2,3,4]\n" * 70_000),
        },
    ),
    **answered(
        415,
        {
            "CSV: unknown charset": csv("1,2,3,4\n", "; charset=utf-7"),
            "CSV: header maybe": csv("1,2,3,4\n", "; header=maybe"),
        },
    ),
}

CODINGS: Cases = {
    **answered(
        200,
        {
            "gzip": coded("gzip", GZIP),
            "gzip in capitals": coded("GZIP", GZIP),
            "identity": coded("identity", ROWS),
            "1,000 gzip members": coded("gzip", gzip.compress(b"") * 1000 + GZIP),
        },
    ),
    **answered(
        400,
        {
            "gzip cut off": coded("gzip", GZIP[:-9]),
            "gzip with a wrong checksum": coded("gzip", GZIP[:-8] + b"\0" * 8),
            "gzip of something else": coded("gzip", ROWS),
            "gzip with text after it": coded("gzip", GZIP + b"text"),
            "gzip empty": coded("gzip", b""),
            "5,000 gzip members": coded("gzip", gzip.compress(b"") * 5000 + GZIP),
            "deflate twice": coded("deflate", zlib.compress(ROWS) * 2),
            "deflate of something else": coded("deflate", b"\xff" * 50),
            "zstd cut off": coded("zstd", zstd.compress(ROWS)[:-3]),
            "zstd with a window of 128 MiB": coded("zstd", b"\x28\xb5\x2f\xfd\x00\x88" + b"\0" * 20),
            "zstd with a dictionary": coded("zstd", b"\x28\xb5\x2f\xfd\x03\x58\x01\x02\x03\x04" + b"\0" * 20),
        },
    ),
    **answered(
        413,
        {
            "gzip bomb": coded("gzip", gzip.compress(BOMB)),
            "deflate bomb": coded("deflate", zlib.compress(BOMB, 9)),
            "zstd bomb": coded("zstd", zstd.compress(BOMB)),
            "bomb for a path without a model": post(gzip.compress(BOMB), "Content-Encoding: gzip", path="/v1/convert"),
        },
    ),
    **answered(
        415,
        {
            "gzip twice": coded("gzip, gzip", gzip.compress(GZIP)),
            "brotli": coded("br", b"\x0b\x02\x80" + ROWS),
            "compress": coded("compress", b"\x1f\x9d\x90"),
            "1,000 codings": coded(",".join(["gzip"] * 1000), GZIP),
            "coding not ASCII": coded("gz\xefp", GZIP),
        },
    ),
}

ALL: Cases = {**TABLES, **CODINGS}
