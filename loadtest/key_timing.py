"""Time the comparison of API keys: wrong keys that begin as a real one does, and keys that share nothing with it (K7).

    .venv/bin/python loadtest/key_timing.py [--tries 100000] [--write]

A client that could measure how far its key agrees with a real one could guess a key part by part. Both kinds of keys
have valid checksums, because a key without one is refused before anything is compared. Each try has a key of its own.
The kinds take turns in random order, and a time includes everything from the text of the key to the refusal.
"""

import gc
import random
import tempfile
import time
from pathlib import Path
from statistics import median

from machine import describe
from operations import read_options, report, row

from service.access.api_key import CHECKSUM_SIZE, ID_SIZE, PREFIX, SECRET_SIZE, ApiKey, checksum_of, make_key
from service.access.key_file import KeyTable, LimitsRecord
from service.access.key_options import Expiry
from service.access.key_storage import FileKeyStorage
from service.access.key_store import KeyStore
from service.access.scopes import Scope

KEYS = 100
DIFFERENCE_NS_MAX = 100
ABOUT = "One process, one thread; a file of 100 keys."


def keys_like(key: ApiKey, count: int) -> list[bytes]:
    """Return wrong keys with the prefix, the id and the first half of the secret of a key."""
    kept = len(PREFIX) + ID_SIZE + 1 + SECRET_SIZE // 2
    bodies = [key.text[:kept] + make_key().text[kept:-CHECKSUM_SIZE] for _ in range(count)]
    return [(body + checksum_of(body)).encode() for body in bodies]


def times_of(table: KeyTable, tries: list[tuple[int, bytes]]) -> tuple[list[int], list[int]]:
    """Return the time of each try in nanoseconds, for both kinds of keys."""
    times: tuple[list[int], list[int]] = ([], [])
    now = time.time()
    gc.disable()
    for kind, text in tries:
        start = time.perf_counter_ns()
        found = table.find(text, now)
        times[kind].append(time.perf_counter_ns() - start)
        if found is not None:
            raise SystemExit("a wrong key was accepted")
    gc.enable()
    return times


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, tries=(100_000, "tries of each kind of key"))
    machine = describe()
    with tempfile.TemporaryDirectory() as name:
        store = KeyStore(FileKeyStorage(Path(name) / "keys.json", lambda _entry: None), "user:anyone")
        keys = [store.create("a key", [Scope.PREDICT], None, Expiry(None), LimitsRecord()).key for _ in range(KEYS)]
        table = KeyTable(store.read())
    tries = [(0, text) for text in keys_like(keys[KEYS // 2], options.tries)]
    tries += [(1, make_key().text.encode()) for _ in range(options.tries)]
    random.shuffle(tries)
    alike, other = (median(times) for times in times_of(table, tries))
    difference = abs(alike - other)
    value = f"{difference:.0f} ns ({alike:,.0f} ns and {other:,.0f} ns)"
    title = "median time to refuse a key that begins as a real one, and one that shares nothing with it: difference"
    rows = [row(title, f"≤ {DIFFERENCE_NS_MAX} ns", value, met=difference <= DIFFERENCE_NS_MAX)]
    report("key_timing", f"{ABOUT} {options.tries:,} tries of each kind.", rows, machine, write=options.write)


if __name__ == "__main__":
    main()
