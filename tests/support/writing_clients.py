"""Program: 16 clients post feedback to a writer without end, and print "<id> <seq>" for each acknowledged event.

Run it with the folder of the log and a prefix for ids: `python -m tests.support.writing_clients FOLDER PREFIX`.
"""

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from service.serve.log.writer import Writer
from tests.support.writer_rig import WriterRig, make_post, make_source


async def post_forever(writer: Writer, prefix: str) -> None:
    """Post one event after the other."""
    source, n = make_source(), 0
    while True:
        location = await writer.submit_event(source, make_post(f"{prefix}-{n}"))
        os.write(1, f"{prefix}-{n} {location.seq}\n".encode())
        n += 1


async def main(folder: Path, prefix: str) -> None:
    """Run the clients."""
    rig = WriterRig(folder)
    rig.writer.start()
    await asyncio.gather(*(post_forever(rig.writer, f"{prefix}-{client}") for client in range(16)))


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2]))
