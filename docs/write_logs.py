"""Write docs/logs.md from service/log_event_table.py: `python docs/write_logs.py`, in the project's environment."""  # noqa: INP001

import logging
import re
from pathlib import Path

from service import log_event_table
from service.log_event_table import EVENTS, LogEvent

PAGE = Path(__file__).parent / "logs.md"

EXAMPLE = (
    '{"time":"2026-01-01T12:00:00.000+00:00","level":"warning","event":"model_refused",'
    '"message":"model iris version 2 refused: model.json is missing","process":7,'
    '"model":"iris","version":2,"reason":"model.json is missing"}'
)
HEAD = """\
# Logs

The service writes its log to standard error, one line for each event. Standard output has a single line: the address,
once the service listens.

```json
EXAMPLE
```

| setting | effect |
|---|---|
| `SOFTSTEP_LOG_FORMAT=json` | one JSON object a line; the default |
| `SOFTSTEP_LOG_FORMAT=text` | text for people: time, level and message; a traceback follows on further lines |
| `SOFTSTEP_ACCESS_LOG=true` | also one line for each response |

- Select lines by `event`, which is stable. The words of `message` may change in any release.
- A process writes a line with one system call, so lines of several processes do not mix.
- No line has a payload, an event's id, a query or a secret. The message of an exception may repeat a value of a
  request, so a traceback has it only for errors of the service and of the system.
- If the disk is full or the pipe is closed, lines are lost. The service continues.
- Other commands write plain text to standard error. So does `softstep serve` for an invalid setting, before it starts.

## Members of every line

| member | value |
|---|---|
| `time` | when the line was written, in UTC, with milliseconds |
| `level` | `info`, `warning` or `error` |
| `event` | the name of the event |
| `message` | one sentence for people |
| `process` | the id of the process |
| `request_id` | the `X-Request-Id` of the response, if a request caused the line |
| `exception` | the traceback of an exception, if there is one |

## Events

This part is written by `docs/write_logs.py` from `service/log_event_table.py`.
"""


def page() -> str:
    """Return the page: a table for each group of events, in the order of log_event_table.py."""
    parts = [HEAD.replace("EXAMPLE", EXAMPLE)]
    for title, names in groups():
        parts.append(f"\n### {title}\n\n| event | level | fields | when |\n|---|---|---|---|\n")
        parts += [row(name, EVENTS[name]) for name in names]
    return "".join(parts)


def groups() -> list[tuple[str, list[str]]]:
    """Return the title and the events of each group; a comment of its own in the table starts a group."""
    source = Path(log_event_table.__file__).read_text().partition("EVENTS: ")[2].partition("\n}\n")[0]
    blocks = re.split(r"^    # (.+)$", source, flags=re.MULTILINE)[1:]
    return [
        (title, re.findall(r'^    "(\w+)": LogEvent', body, re.MULTILINE))
        for title, body in zip(blocks[::2], blocks[1::2], strict=True)
    ]


def row(name: str, event: LogEvent) -> str:
    """Return the table row of an event."""
    fields = ", ".join(f"`{field}`" for field in event.fields)
    return f"| `{name}` | {logging.getLevelName(event.level).lower()} | {fields} | {event.meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
