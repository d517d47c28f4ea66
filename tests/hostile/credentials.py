"""Hostile credentials: keys that are damaged, misplaced, revoked, expired, or not for this call."""

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from service.access.api_key import make_key
from service.access.key_file import read_keys, utc_now, write_keys
from service.access.scopes import Scope
from tests.hostile.cases import FEEDBACK, PREDICT, ROWS, Cases, answered, get, post, post_json
from tests.support.api_keys import add_key

LABELED = {"instances": [[5.1, 3.5, 1.4, 0.2]], "labels": [0]}


class Keys(NamedTuple):
    """The keys of the tested service, by what they permit."""

    full: str
    predict: str
    feedback: str
    iris: str
    other: str
    expired: str
    revoked: str


def write_test_keys(path: Path) -> Keys:
    """Write a file with a key of each kind."""
    past = utc_now() - timedelta(hours=1)
    keys = Keys(
        add_key(path),
        add_key(path, Scope.PREDICT),
        add_key(path, Scope.FEEDBACK),
        add_key(path, models=("iris",)),
        add_key(path, models=("other-*",)),
        add_key(path, expires=past),
        add_key(path),
    )
    records = list(read_keys(path).keys)
    records[-1] = records[-1].model_copy(update={"revoked": past, "secrets": ()})
    write_keys(path, records)
    return keys


def token_of(*parts: object) -> str:
    """Return an unsigned JSON web token of JSON parts."""
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return ".".join((*encoded, ""))


def predict(*lines: str) -> bytes:
    """Return a prediction with these headers."""
    return post(ROWS, *lines)


def bearer(value: str) -> bytes:
    """Return a prediction with a bearer token."""
    return predict(f"Authorization: Bearer {value}")


def damaged(key: str) -> Mapping[str, str]:
    """Return texts that are almost a key, by what is wrong with them."""
    last = "0" if key[-1] != "0" else "1"
    middle = "A" if key[30] != "A" else "B"
    return {
        "its last character changed": key[:-1] + last,
        "its secret changed": key[:30] + middle + key[31:],
        "its id changed": key[:9] + ("a" if key[9] != "a" else "b") + key[10:],
        "the prefix changed": "Softstep_" + key[9:],
        "capitals": key.upper(),
        "cut off": key[:-1],
        "one character more": key + "0",
        "twice": key * 2,
        "a zero after it": key + "\\0",
        "quotes": f'"{key}"',
        "brackets": f"<{key}>",
        "a space inside": f"{key[:20]} {key[20:]}",
        "a comma after it": key + ",",
        "a letter of another script": key[:20] + "\xe0" + key[21:],
        "only its id": key[:18],
        "its checksum alone": key[-6:],
        "encoded": base64.b64encode(key.encode()).decode(),
    }


def credential_cases(keys: Keys) -> Cases:
    """Return the requests to a service with these keys."""
    full, claims = keys.full, {"iss": "https://evil.example", "sub": "a", "scope": "admin"}
    pair = base64.b64encode(f"user:{full}".encode()).decode()
    return {
        **answered(401, {f"key, {name}": bearer(text) for name, text in damaged(full).items()}),
        **answered(
            401,
            {
                "no key": predict(),
                "no scheme": predict(f"Authorization: {full}"),
                "scheme alone": predict("Authorization: Bearer"),
                "scheme and spaces": predict("Authorization: Bearer    "),
                "Authorization empty": predict("Authorization:"),
                "Basic": predict(f"Authorization: Basic {pair}"),
                "Digest": predict('Authorization: Digest username="a"'),
                "scheme with a colon": predict(f"Authorization: Bearer: {full}"),
                "key of 20,000 characters": bearer("a" * 20_000),
                "an unknown key": bearer(make_key().text),
                "an expired key": bearer(keys.expired),
                "a revoked key": bearer(keys.revoked),
                "X-API-Key empty beside a key": predict("X-API-Key:", f"Authorization: Bearer {full}"),
                "X-API-Key with a scheme": predict(f"X-API-Key: Bearer {full}"),
                "key in the query": post(ROWS, path=f"{PREDICT}?api_key={full}&access_token={full}"),
                "key in a cookie": predict(f"Cookie: token={full}; Authorization={full}"),
                "key in another header": predict(f"Proxy-Authorization: Bearer {full}", f"X-Authorization: {full}"),
                "header with an underscore": predict(f"X_API_Key: {full}"),
                "key in a trailer": get(PREDICT, "Transfer-Encoding: chunked", "Trailer: Authorization", method="POST")
                + b"21\r\n%b\r\n0\r\nAuthorization: Bearer %b\r\n\r\n" % (ROWS, full.encode()),
                "key in the body": post_json({"instances": [[1, 2, 3, 4]], "api_key": full}, PREDICT),
                "token of no algorithm": bearer(token_of({"alg": "none"}, claims)),
                "token of an unknown algorithm": bearer(token_of({"alg": "HS256", "kid": "../../x"}, claims) + "YQ"),
                "token that names its keys": bearer(
                    token_of({"alg": "RS256", "jku": "http://127.0.0.1:1/"}, claims) + "YQ"
                ),
                "token of five parts": bearer("a.b.c.d.e"),
                "token of 10,000 dots": bearer("." * 10_000),
                "token of deep JSON": bearer(base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30.YQ"),
                "list of models without a key": get("/v1/models"),
                "index without a key": post_json({}, "/v2/repository/index"),
                "unload without a key": post_json({}, "/v2/repository/models/iris/unload"),
                "weights without a key": get("/v1/models/iris/weights"),
                "feedback without a key": post_json(LABELED, FEEDBACK),
                "HEAD without a key": get("/v1/models/iris", "Connection: close", method="HEAD"),
                "invocations without a key": post(ROWS, path="/invocations"),
                "large body without a key": get(PREDICT, "Content-Length: 1000000", method="POST"),
                "gzip without a key": post(b"\xff" * 99, "Content-Encoding: gzip"),
            },
        ),
        **answered(
            403,
            {
                "feedback with a key of predict": post_json(LABELED, FEEDBACK, f"X-API-Key: {keys.predict}"),
                "feedback through the other path": post_json(
                    LABELED, f"{FEEDBACK}?wait=true", f"X-API-Key: {keys.predict}"
                ),
                "unload with a key of predict": post_json(
                    {}, "/v2/repository/models/iris/unload", f"X-API-Key: {keys.predict}"
                ),
                "predict with a key of feedback": predict(f"X-API-Key: {keys.feedback}"),
                "invocations with a key of feedback": post(ROWS, f"X-API-Key: {keys.feedback}", path="/invocations"),
                "weights with a key of feedback": get("/v1/models/iris/weights", f"X-API-Key: {keys.feedback}"),
                "another model": predict(f"X-API-Key: {keys.other}"),
                "another model, encoded": post(ROWS, f"X-API-Key: {keys.other}", path="/v1/models/ir%69s:predict"),
                "another model, version named": post(
                    ROWS, f"X-API-Key: {keys.other}", path="/v1/models/iris/versions/1:predict"
                ),
                "another model, v2": post(ROWS, f"X-API-Key: {keys.other}", path="/v2/models/iris/infer"),
                "another model, default": post(ROWS, f"X-API-Key: {keys.other}", path="/invocations"),
                "an unknown model": post(ROWS, f"X-API-Key: {keys.iris}", path="/v1/models/absent:predict"),
                "a model whose name begins alike": post(
                    ROWS, f"X-API-Key: {keys.iris}", path="/v1/models/iris2:predict"
                ),
            },
        ),
        **answered(
            200,
            {
                "Authorization in small letters": predict(f"authorization: bearer {full}"),
                "spaces around the key": predict(f"X-API-Key:    {full}   "),
                "scheme in capitals": predict(f"Authorization: BEARER {full}"),
                "its own model": predict(f"X-API-Key: {keys.iris}"),
            },
        ),
    }
