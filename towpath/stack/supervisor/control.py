"""The supervisor's control socket: one JSON object a line each way, requests answered in order.

Requests: `hello`, `status`, `wait` (seen, seconds), `start` (spec), `stop`, `restart`, `kill` (name, signal),
`begin` and `commit`, `shutdown`. A connection that said `begin` and ends without `commit` takes the whole stack
down: an `up` that fails or is killed half way leaves nothing running.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from towpath.stack.supervisor.spec import PROTOCOL, ProcessSpec

if TYPE_CHECKING:
    from towpath.stack.supervisor.supervisor import Supervised, Supervisor

LINE_BYTES_MAX = 1024 * 1024


class BadRequest(Exception):
    """The request cannot be carried out; the message is the answer."""


async def serve(supervisor: "Supervisor") -> asyncio.Server:
    """Listen on the home's control socket, which only its owner may use."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _Conversation(supervisor).run(reader, writer)

    with supervisor.home.short_socket_path() as path:
        server = await asyncio.start_unix_server(converse, path, limit=LINE_BYTES_MAX)
    os.chmod(supervisor.home.socket, 0o600)
    return server


class _Conversation:
    """What one client asks, one request after another."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._uncommitted = False

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the client is gone, or does not speak the protocol
        finally:
            writer.close()
            if self._uncommitted:
                await self._supervisor.stop_all()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        request = json.loads(line)
        try:
            return {"ok": True, **(await self._carry_out(request) or {})}
        except BadRequest as error:
            return {"ok": False, "error": str(error)}
        except (KeyError, TypeError, ValueError) as error:
            return {"ok": False, "error": f"this request cannot be read: {error}"}

    async def _carry_out(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        supervisor = self._supervisor
        match request.get("verb"):
            case "hello":
                return {"protocol": PROTOCOL, "pid": os.getpid(), "uptime_seconds": supervisor.uptime_seconds()}
            case "status":
                return self._status()
            case "wait":
                await supervisor.next_change(request["seen"], request["seconds"])
                return self._status()
            case "start":
                supervisor.start(ProcessSpec.from_json(request["spec"]))
            case "stop":
                await self._named(request).stop()
            case "restart":
                await supervisor.restart(self._named(request))
            case "kill":
                self._named(request).send(request["signal"])
            case "begin":
                self._uncommitted = True
            case "commit":
                self._uncommitted = False
            case "shutdown":
                await supervisor.stop_all()
            case verb:
                raise BadRequest(f"no verb {verb!r}")
        return None

    def _status(self) -> dict[str, Any]:
        processes = [one.status().to_json() for one in self._supervisor.processes.values()]
        return {"changes": self._supervisor.changes, "processes": processes}

    def _named(self, request: Mapping[str, Any]) -> "Supervised":
        process = self._supervisor.processes.get(request["name"])
        if process is None:
            raise BadRequest(f"no process is called {request['name']!r}")
        return process
