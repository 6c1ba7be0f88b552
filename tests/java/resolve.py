"""Writes `parts.lock` of this folder anew (`python -m tests.java.resolve`): Java's Avro, and a compiler for one file.

The bundled Java is a runtime without `javac`; Eclipse's compiler is one jar that runs on it.
"""

from pathlib import Path

from jgo.maven import MavenContext

from towpath.stack.lock import render_lock
from towpath.stack.resolve import _locked

AVRO_VERSION = "1.12.1"
COMPILER_VERSION = "3.41.0"
PARTS = {
    "avro": (f"org.apache.avro:avro:{AVRO_VERSION}", "org.slf4j:slf4j-nop:2.0.16"),
    "compiler": (f"org.eclipse.jdt:ecj:{COMPILER_VERSION}",),
}


def resolve() -> str:
    """Return the text of a new lock. Fetches every file."""
    context = MavenContext(timeout=120)
    paths: dict[str, tuple[Path, str]] = {}
    for part, coordinates in PARTS.items():
        inputs, transitive = context.resolver.resolve([context.create_dependency(one) for one in coordinates])
        used = [one for one in transitive if one.scope in {"compile", "runtime"}]
        for dependency in (*inputs, *used):
            artifact = dependency.artifact
            name = f"{artifact.groupId}:{artifact.artifactId}:jar:{artifact.version}"
            paths[name] = (artifact.resolve(), part)
    return render_lock(_locked(name, path, {part}) for name, (path, part) in paths.items())


if __name__ == "__main__":
    Path(__file__).with_name("parts.lock").write_text(resolve(), encoding="utf-8")
