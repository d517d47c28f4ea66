"""Compare requests with an API key or a JWT to requests without (figure K1).

    python loadtest/keys.py [--rounds 7] [--seconds 2] [--write]

Two services of this checkout run on one core, one without keys and one with a file of keys and an issuer of JWTs; the
client has the other core. Every round measures each load three times, in changing order: without a credential at the
first service, and with a key and with a JWT at the second. In one half of the loads every request has the same head;
in the other half each has another X-Request-Id, so that no remembered head helps. The figures are medians of the
rounds' ratios.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import SystemRandom
from statistics import median
from typing import Any, NamedTuple

from checkout_service import CheckoutService
from closedloop import CONNECTIONS, FEEDBACK_CONNECTIONS, SEED_MAX, measure_load, wrk
from environments import ROOT
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from loads import make_loads
from machine import describe
from operations import read_options, report, row
from processes import Running, free_port, serving

ISSUER, AUDIENCE = "https://login.example/realms/company", "softstep"
# Claims that issuers add, so that the JWT is as long as one of theirs.
MORE_CLAIMS = {
    "azp": "web",
    "email": "somebody@company.example",
    "name": "Some Body",
    "preferred_username": "somebody",
    "roles": [f"role-{number}" for number in range(12)],
    "sid": "0b6d9a5e-3c55-4f2c-8f0c-7f1d1e5a2b11",
}
FEEDBACK_PATH = "/v1/models/iris:feedback"
FEEDBACK_BODY = b'{"instances":[[5.1,3.5,1.4,0.2]],"labels":[0]}'
TARGETS = {"a key": 0.95, "a JWT": 0.9}
LIFETIME_SECONDS = 86_400
ABOUT = (
    "One worker on one core, wrk on another. Requests/s with a credential, divided by those without: medians of "
    "{rounds} rounds of {seconds} s, two services in turn. The JWT has {size:,} bytes and an RSA signature."
)


class Load(NamedTuple):
    """One kind of request: its script of wrk, path, arguments before the headers, and headers."""

    script: str
    path: str
    words: tuple[str, ...]
    headers: Mapping[str, str]
    connections: int


class Credentials(NamedTuple):
    """The settings of a service with keys, and the header of each credential."""

    settings: dict[str, object]
    headers: dict[str, dict[str, str]]
    jwt_bytes: int


def make_credentials(folder: Path) -> Credentials:
    """Write a file of keys and a key set; return the settings that name them, and what a client sends."""
    create = ["keys", "create", "--name", "load test", "--scopes", "predict,feedback", "--data", str(folder)]
    command = [sys.executable, "-m", "service", *create]
    key = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    signing = RSAKey.generate_key(2048, {"kid": "2026-11", "use": "sig", "alg": "RS256"})
    (folder / "jwks.json").write_text(json.dumps(KeySet([signing]).as_dict(private=False)))
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "7c0e6a0e-30ce-4b0b-9b3a-0b8f4c6a9d11",
        "iat": now,
        "exp": now + LIFETIME_SECONDS,
        "scope": "openid softstep:predict softstep:feedback",
        **MORE_CLAIMS,
    }
    token = jwt.encode({"alg": "RS256", "kid": "2026-11"}, claims, signing)
    settings = {
        "keys_file": folder / "keys.json",
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        "jwt_keys": folder / "jwks.json",
    }
    headers = {
        "nothing": {},
        "a key": {"Authorization": f"Bearer {key}"},
        "a JWT": {"Authorization": f"Bearer {token}"},
    }
    return Credentials(settings, headers, len(token))


@contextmanager
def running(folder: Path, settings: dict[str, object]) -> Iterator[Running]:
    """Run a service of this checkout with some settings."""
    service = CheckoutService(free_port(), folder, settings)
    words = [f"{name}={value}" for name, value in service.variables().items() if name.startswith("SOFTSTEP_")]
    command = ["env", "-C", str(ROOT), *words, *service.command]
    with serving(command, service.port, "/readyz", folder / "log") as server:
        yield server


def make_kinds(folder: Path) -> dict[str, Load]:
    """Return the loads by name, with their bodies in files."""
    every = make_loads(ROOT / "models")
    kinds = {}
    for name, title in (("predict-1", "`:predict`"), ("infer-1", "v2 `/infer`")):
        load = every[name]
        words = (str(load.write(folder)),)
        kinds[title] = Load("post.lua", load.path, words, load.headers, CONNECTIONS)
        kinds[f"{title}, heads that differ"] = Load("varied.lua", load.path, words, load.headers, CONNECTIONS)
    body = folder / "feedback.json"
    body.write_bytes(FEEDBACK_BODY)
    kinds["feedback"] = Load("feedback.lua", FEEDBACK_PATH, (str(body),), {}, FEEDBACK_CONNECTIONS)
    return kinds


class Rates(NamedTuple):
    """Requests per second of time, and per second of the server's processor time."""

    per_second: float
    per_cpu_second: float


def saturate(server: Running, load: Load, headers: Mapping[str, str], seconds: int) -> Rates:
    """Return the rates at saturation."""

    def send(seconds: int) -> dict[str, Any]:
        seed = [] if load.script == "post.lua" else [str(SystemRandom().randrange(SEED_MAX))]
        named = [word for pair in {**load.headers, **headers}.items() for word in pair]
        words = [*load.words, *seed, *named]
        return wrk(server.port, load.path, load.script, words, connections=load.connections, seconds=seconds)

    seen = measure_load(server, send, seconds)
    return Rates(seen["per_s"], 1e6 / (seen["user_us"] + seen["system_us"]))


def judge(title: str, target: float, with_it: list[Rates], without: list[Rates]) -> list[str]:
    """Return the row of one load and credential."""
    value, by_cpu = (
        median(some[field] / none[field] for some, none in zip(with_it, without, strict=True)) for field in (0, 1)
    )
    absolute = " / ".join(f"{median(one.per_second for one in side):,.0f}" for side in (with_it, without))
    measured = f"{value:.3f} ({absolute}); {by_cpu:.3f} by processor time"
    return row(title, f"≥ {target}", measured, met=value >= target)


def measure(rounds: int, seconds: int) -> tuple[list[list[str]], int]:
    """Return the rows of the page, and the size of the JWT."""
    rates: defaultdict[str, dict[str, list[Rates]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        scratch = Path(name)
        credentials = make_credentials(scratch)
        plain = stack.enter_context(running(scratch / "plain", {}))
        secured = stack.enter_context(running(scratch / "secured", credentials.settings))
        kinds = make_kinds(scratch)
        for number in range(rounds):
            turns = list(credentials.headers)[:: 1 if number % 2 else -1]
            for title, load in kinds.items():
                for sent in turns:
                    server = secured if credentials.headers[sent] else plain
                    rates[title][sent].append(saturate(server, load, credentials.headers[sent], seconds))
    rows = [
        judge(f"{title}, with {sent}", target, seen[sent], seen["nothing"])
        for sent, target in TARGETS.items()
        for title, seen in rates.items()
    ]
    return rows, credentials.jwt_bytes


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, rounds=7, seconds=2)
    machine = describe()
    rows, size = measure(options.rounds, options.seconds)
    about = ABOUT.format(rounds=options.rounds, seconds=options.seconds, size=size)
    report("keys", about, rows, machine, write=options.write)


if __name__ == "__main__":
    main()
