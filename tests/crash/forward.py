"""Forwards TCP connections, late if told so: `python -m tests.crash.forward LISTEN CONNECT FILE`.

Addresses are HOST:PORT; FILE holds by how many milliseconds bytes are to be held back, now.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path


async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: Path) -> None:
    """Copy bytes until either side ends."""
    with suppress(ConnectionError):
        while data := await source.read(65_536):
            await asyncio.sleep(float(delay.read_text() or 0) / 1000)
            target.write(data)
            await target.drain()
    target.close()


async def main(listen: str, connect: str, delay: Path) -> None:
    """Forward for ever."""
    host, _, port = listen.rpartition(":")
    to_host, _, to_port = connect.rpartition(":")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(to_host, int(to_port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer, delay), pump(far_reader, writer, delay))

    server = await asyncio.start_server(accept, host, int(port))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
