"""What a fetch promises: it resumes, it verifies, and it says in words what went wrong."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from towpath.errors import WorldError
from towpath.settings import StackSettings
from towpath.stack.cache import install
from towpath.stack.http import CorruptDownload, fetch
from towpath.stack.lock import LockedFile, PartsLock
from towpath.stack.up import Silent

CONTENT = bytes(range(256)) * 4096  # 1 MiB


def packed_registry() -> bytes:
    """Return an archive that looks like the registry's: a runner in a folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        runner = tarfile.TarInfo("./registry-1.0/quarkus-run.jar")
        tar.addfile(runner, io.BytesIO())
    return packed.getvalue()


ARCHIVE = packed_registry()
WANTED = LockedFile("org.example:thing:jar:1.0", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), ("kafka",))


@dataclass
class Repository:
    """A repository that a test makes misbehave: `answers` are what it does with each request in turn."""

    answers: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Serve the content as the next answer says; well once none is left."""
        what = self.answers.pop(0) if self.answers else "well"
        asked = handler.headers.get("Range")
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and what != "no ranges" else 0
        if what in {"away", "missing"}:
            handler.send_error(503 if what == "away" else 404)
            return
        whole = ARCHIVE if handler.path.endswith(".tar.gz") else CONTENT
        body = whole[start:] if what != "other content" else bytes(len(whole) - start)
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if what == "breaks" else body)


@pytest.fixture
def repository() -> Iterator[Repository]:
    """Return a repository on this machine."""
    found = Repository()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


Fetch = Callable[[], Path]


@pytest.fixture
def fetched(repository: Repository, tmp_path: Path) -> Iterator[Fetch]:
    """Return a function that fetches the wanted file and returns where it lies."""
    target = tmp_path / "cache" / "thing.jar"
    with httpx.Client(timeout=10) as client:

        def run() -> Path:
            fetch(client, repository.url, WANTED, target, lambda _: None)
            return target

        yield run


def test_a_file_arrives_whole(fetched: Fetch) -> None:
    """A good repository gives the file, and no part of it is left beside it."""
    target = fetched()
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_broken_fetch_goes_on_where_it_ended(repository: Repository, fetched: Fetch) -> None:
    """After a broken connection only the rest is asked for."""
    repository.answers = ["breaks"]
    assert fetched().read_bytes() == CONTENT
    assert repository.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_later_run_goes_on_where_an_earlier_one_was_killed(
    repository: Repository, fetched: Fetch, tmp_path: Path
) -> None:
    """The part that an earlier run kept is continued, not fetched again."""
    part = tmp_path / "cache" / "thing.jar.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:1000])
    assert fetched().read_bytes() == CONTENT
    assert repository.ranges == ["bytes=1000-"]


def test_a_repository_without_ranges_sends_all_again(repository: Repository, fetched: Fetch) -> None:
    """Where the rest cannot be had alone, the file is fetched from its beginning and is right."""
    repository.answers = ["breaks", "no ranges"]
    assert fetched().read_bytes() == CONTENT
    assert len(repository.ranges) == 2


def test_a_damaged_part_is_thrown_away(fetched: Fetch, tmp_path: Path) -> None:
    """A part that is wrong shows in the hash of the whole, and the file is fetched anew."""
    part = tmp_path / "cache" / "thing.jar.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    assert fetched().read_bytes() == CONTENT


def test_other_content_than_the_locked_one_is_refused(repository: Repository, fetched: Fetch, tmp_path: Path) -> None:
    """A file with another hash never gets its name, and the error says so."""
    repository.answers = ["other content", "other content"]
    with pytest.raises(CorruptDownload, match=r"org\.example:thing:jar:1\.0 is not the locked file"):
        fetched()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_repository_that_is_away_is_tried_again(repository: Repository, fetched: Fetch) -> None:
    """A server error is retried; the file then arrives."""
    repository.answers = ["away", "away"]
    assert fetched().read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_again(repository: Repository, fetched: Fetch) -> None:
    """What the repository does not have is said at once."""
    repository.answers = ["missing"] * 9
    with pytest.raises(WorldError, match="404"):
        fetched()
    assert len(repository.ranges) == 1


def test_a_full_disk_is_said_in_words(fetched: Fetch, tmp_path: Path) -> None:
    """Running out of space names the folder and what to do, and what arrived is kept."""
    part = tmp_path / "cache" / "thing.jar.part"
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    with pytest.raises(WorldError, match="the disk is full") as caught:
        fetched()
    assert caught.value.next_step is not None
    assert "stack.cache" in caught.value.next_step


class Counting(Silent):
    """Counts the bytes that it is told of."""

    def __init__(self) -> None:
        self.wanted = self.arrived = 0

    def begin(self, files: int, size_bytes: int) -> None:
        """Note how much is wanted."""
        self.wanted += size_bytes

    def advance(self, size_bytes: int) -> None:
        """Note what arrived."""
        self.arrived += size_bytes


REGISTRY = LockedFile(
    "io.apicurio:app:tar.gz:all:1.0", hashlib.sha256(ARCHIVE).hexdigest(), len(ARCHIVE), ("registry",)
)
SMALL_LOCK = PartsLock(
    (
        WANTED,
        replace(WANTED, coordinates="org.example:other:jar:2.0", parts=("connect",)),
        replace(WANTED, coordinates="io.debezium:debezium-connector-postgres:jar:3.0", parts=("debezium",)),
        REGISTRY,
    )
)


@pytest.fixture
def cache(repository: Repository, tmp_path: Path) -> StackSettings:
    """Return settings with a cache of this test's own."""
    return StackSettings(cache=tmp_path / "cache", maven_repository=repository.url)


def test_a_damaged_file_in_the_cache_is_fetched_again(cache: StackSettings) -> None:
    """Every file is hashed before it is used: one that was damaged on disk is fixed by the next `up`, alone."""
    (path,) = install(cache, SMALL_LOCK, Silent()).kafka_class_path
    path.write_bytes(b"x" * len(CONTENT))
    watcher = Counting()
    install(cache, SMALL_LOCK, watcher)
    assert path.read_bytes() == CONTENT
    assert watcher.wanted == watcher.arrived == len(CONTENT)


def test_plugin_folders_hold_exactly_the_locked_jars(cache: StackSettings) -> None:
    """A jar of an earlier lock does not stay in the folder that Connect scans."""
    (plugin,) = install(cache, SMALL_LOCK, Silent()).plugin_folder.iterdir()
    (plugin / "old.jar").touch()
    install(cache, SMALL_LOCK, Silent())
    assert [path.name for path in plugin.iterdir()] == ["debezium-connector-postgres-3.0.jar"]
    assert next(plugin.iterdir()).read_bytes() == CONTENT


def test_an_unpacked_registry_that_is_incomplete_is_unpacked_again(cache: StackSettings) -> None:
    """A run that was killed while it unpacked leaves nothing that the next one would take for whole."""
    folder = install(cache, SMALL_LOCK, Silent()).registry_folder
    (folder / "quarkus-run.jar").unlink()
    assert (install(cache, SMALL_LOCK, Silent()).registry_folder / "quarkus-run.jar").is_file()
    watcher = Counting()
    install(cache, SMALL_LOCK, watcher)
    assert watcher.wanted == 0
