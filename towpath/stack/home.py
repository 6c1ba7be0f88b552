"""The folders of one stack: where its data, logs, settings and control socket lie."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# sun_path holds 104 bytes with the final zero on macOS, 108 on Linux (unix(7)).
_SOCKET_PATH_BYTES_MAX = 103


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one stack, absolute."""

    root: Path

    @property
    def data(self) -> Path:
        """Return the folder of the parts' data, which survives `down`."""
        return self.root / "data"

    @property
    def logs(self) -> Path:
        """Return the folder of the logs, a file each process."""
        return self.root / "logs"

    @property
    def config(self) -> Path:
        """Return the folder of rendered settings, written anew at each `up`."""
        return self.root / "config"

    @property
    def run(self) -> Path:
        """Return the folder of what lives only while the stack does; only its owner may enter it."""
        return self.root / "run"

    @property
    def lock(self) -> Path:
        """Return the file that the running supervisor holds locked; its content is the supervisor's pid."""
        return self.run / "supervisor.lock"

    @property
    def dev_lock(self) -> Path:
        """Return the file that the running `towpath dev` holds locked; its content is that one's pid."""
        return self.run / "dev.lock"

    @property
    def socket(self) -> Path:
        """Return the control socket."""
        return self.run / "supervisor.sock"

    @property
    def supervisor_log(self) -> Path:
        """Return the supervisor's own log."""
        return self.logs / "supervisor.log"

    @property
    def shape(self) -> Path:
        """Return the file that says what the data was made for."""
        return self.data / "shape.json"

    def log_file(self, name: str) -> Path:
        """Return the log of one process."""
        return self.logs / f"{name.replace(':', '-').replace('/', '-')}.log"

    def ready_file(self, name: str) -> Path:
        """Return the file that a worker makes when it is ready (`TOWPATH_READY_FILE`)."""
        return self.run / f"{name.replace(':', '-').replace('/', '-')}.ready"

    def make(self) -> None:
        """Make the folders that are missing."""
        for folder in (self.data, self.logs, self.config, self.run):
            folder.mkdir(parents=True, exist_ok=True)
        self.run.chmod(0o700)

    @contextmanager
    def short_socket_path(self) -> Iterator[str]:
        """Give a path of the socket that fits a socket address, however deep the home lies."""
        path = str(self.socket)
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
            yield path
            return
        folder = tempfile.mkdtemp(prefix="towpath-")
        link = os.path.join(folder, "run")
        try:
            os.symlink(self.run, link)
            yield f"{link}/{self.socket.name}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
