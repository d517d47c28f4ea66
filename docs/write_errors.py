"""Write the table of error codes in docs/errors.md from service/serve/error_codes.py: `python docs/write_errors.py`."""  # noqa: INP001

from pathlib import Path

from marked_table import replace_table

from service.serve.error_codes import ERROR_CODES, SOME_REFUSED, ErrorCode

PAGE = Path(__file__).parent / "errors.md"

HEAD = """
`retry` is whether the same request can succeed, and when: later, or after a change of the request. `stored` is whether
anything of the request was stored. Sending an event again with its id is always safe: it counts once. On v2 paths 422
becomes 400.

| code | status | meaning | retry | stored |
|---|---|---|---|---|
"""


def page(text: str) -> str:
    """Return the text of the page with the table between its marks."""
    return replace_table(text, "error codes", table())


def table() -> str:
    """Return a line for each code, in the order of the status."""
    some_refused = line(
        SOME_REFUSED,
        "that of `reason`",
        "Some events of the request were refused; `reason` is the code of the first.",
        "as for `reason`; stored events are recognized",
        "the others",
    )
    return HEAD + "".join([row(code, entry) for code, entry in ERROR_CODES.items()]) + some_refused


def row(code: str, entry: ErrorCode) -> str:
    """Return the line of one code."""
    retry = f"{entry.retry}; `Retry-After`" if entry.retry_after else entry.retry
    return line(code, str(entry.status), entry.meaning, retry, entry.stored)


def line(code: str, *cells: str) -> str:
    """Return a line of the table."""
    return f"| `{code}` | {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
