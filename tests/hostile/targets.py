"""Hostile targets: traversals, encodings, names and numbers in paths, and queries."""

from tests.hostile.cases import FEEDBACK, HEALTH, ROWS, Cases, answered, get, head, post, post_json
from tests.support.json_numbers import CANARY

LABELED = {"instances": [[5.1, 3.5, 1.4, 0.2]], "labels": [CANARY]}


def predict(path: str) -> bytes:
    """Return a prediction by this path."""
    return post(ROWS, path=path)


ALL: Cases = {
    **answered(
        404,
        {
            "parent folder": get("/../../etc/passwd"),
            "parent folder, encoded": get("/%2e%2e/%2e%2e/etc/passwd"),
            "parent folder, encoded twice": get("/%252e%252e/etc/passwd"),
            "parent folder, encoded slash": get("/..%2f..%2fetc%2fpasswd"),
            "parent folder, backslashes": get("/..\\..\\windows\\win.ini"),
            "parent folder, overlong": get("/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd"),
            "parent folder below /docs": get("/docs/../../etc/passwd"),
            "parent folder below the page's files": get("/docs/swagger-ui/..%2f..%2f..%2fetc%2fpasswd"),
            "parent of a model": predict("/v1/models/..%2firis:predict"),
            "model named ..": predict("/v1/models/..:predict"),
            "model with a slash": predict("/v1/models/iris%2f1:predict"),
            "model with a zero byte": predict("/v1/models/iris%00:predict"),
            "model with a line break": predict("/v1/models/iris%0d%0aX-A:%201:predict"),
            "model of 5,000 letters": predict(f"/v1/models/{'a' * 5000}:predict"),
            "model not ASCII": predict("/v1/models/%c3%bc:predict"),
            "model of bytes that are no UTF-8": predict("/v1/models/%ff%fe:predict"),
            "model with a lone percent": predict("/v1/models/%:predict"),
            "model in capitals": predict("/v1/models/IRIS:predict"),
            "model of a template": predict("/v1/models/{{7*7}}:predict"),
            "model of SQL": predict("/v1/models/'%20OR%201=1--:predict"),
            "verb twice": predict("/v1/models/iris:predict:predict"),
            "verb in capitals": predict("/v1/models/iris:PREDICT"),
            "verb with a slash": predict("/v1/models/iris:predict/"),
            "verb unknown": predict("/v1/models/iris:__class__"),
            "version 0": predict("/v1/models/iris/versions/0:predict"),
            "version below 0": predict("/v1/models/iris/versions/-1:predict"),
            "version of 400 digits": predict(f"/v1/models/iris/versions/{'9' * 400}:predict"),
            "version with an exponent": predict("/v1/models/iris/versions/1e0:predict"),
            "version in other digits": predict("/v1/models/iris/versions/%d9%a1:predict"),
            "double slash": predict("//v1/models/iris:predict"),
            "dot segment": predict("/v1/./models/iris:predict"),
            "path parameter": predict("/v1/models/iris;a=b:predict"),
            "encoded question mark": get("/healthz%3fa"),
            "path of 9,000 slashes": get("/" * 9000),
            "path of 4,000 encoded dots": get("/" + "%2e" * 4000),
        },
    ),
    **answered(
        400,
        {
            "another server": head("GET softstep:80 HTTP/1.1", "Host: localhost"),
            "no slash": head("GET healthz HTTP/1.1", "Host: localhost"),
            "a port of 6 digits": head("GET http://softstep:999999/ HTTP/1.1", "Host: localhost"),
        },
    ),
    **answered(
        200,
        {
            "absolute target": head(f"GET http://softstep{HEALTH} HTTP/1.1", "Host: localhost"),
            "absolute target of another host": head(f"GET http://evil{HEALTH} HTTP/1.1", "Host: localhost"),
            "encoded letters": predict("/v1/models/ir%69s:predict"),
            "a query of 20,000 bytes": get(f"{HEALTH}?{'a=b&' * 5000}"),
            "a query of zero bytes": get(f"{HEALTH}?%00%ff"),
            "metrics with names": get("/metrics?name[]=a&name[]=%00"),
        },
    ),
    **answered(
        422,
        {
            "wait maybe": post_json(LABELED, f"{FEEDBACK}?wait=maybe"),
            "seq of weights below 0": get("/v1/models/iris/weights?seq=-1"),
            "seq of weights of 70 bits": get(f"/v1/models/iris/weights?seq={1 << 70}"),
            "seq of weights a text": get("/v1/models/iris/weights?seq=c4nary"),
        },
    ),
}
