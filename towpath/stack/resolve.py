"""Writes `parts.lock` anew: resolves the parts' dependencies and hashes each file (`python -m towpath.stack.resolve`).

Only those who change the versions of the parts run this; `towpath up` reads the lock and never resolves.
"""

import hashlib
from collections import defaultdict
from pathlib import Path

from jgo.maven import MavenContext

from towpath.stack.lock import LOCK_FILE, LockedFile, render_lock

KAFKA_VERSION = "4.3.1"
DEBEZIUM_VERSION = "3.7.0.Final"
REGISTRY_VERSION = "3.3.3"
# Kafka's own jars name log4j 2.25.4 and slf4j 1.7: the binding must be the one for slf4j 1 of that version.
LOG4J_VERSION = "2.25.4"

# The trailing `!` keeps log4j's dependency management, which names an older Kafka client, from deciding for Kafka.
LOGGING = (
    f"org.apache.logging.log4j:log4j-core:{LOG4J_VERSION}!",
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}!",
)
PARTS = {
    "kafka": (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", *LOGGING),
    "connect": (
        f"org.apache.kafka:connect-runtime:{KAFKA_VERSION}",
        f"org.apache.kafka:connect-json:{KAFKA_VERSION}",
        *LOGGING,
    ),
    "debezium": (f"io.debezium:debezium-connector-postgres:{DEBEZIUM_VERSION}",),
}
# The worker's class path brings these; a second copy in the plugin's own class loader would be another class.
PROVIDED_TO_PLUGINS = (
    "org.apache.kafka:",
    "org.slf4j:",
    "at.yawk.lz4:",
    "org.xerial.snappy:",
    "com.github.luben:zstd-jni",
)
REGISTRY = ("io.apicurio", "apicurio-registry-app", REGISTRY_VERSION, "all", "tar.gz")


def resolve() -> str:
    """Return the text of a new lock. Fetches every file; takes minutes the first time."""
    context = MavenContext(timeout=120)
    parts_of: dict[str, set[str]] = defaultdict(set)
    paths: dict[str, Path] = {}
    for part, coordinates in PARTS.items():
        inputs, transitive = context.resolver.resolve([context.create_dependency(one) for one in coordinates])
        used = [one for one in transitive if one.scope in {"compile", "runtime"}]
        for dependency in (*inputs, *used):
            artifact = dependency.artifact
            name = f"{artifact.groupId}:{artifact.artifactId}:jar:{artifact.version}"
            if part == "debezium" and name.startswith(PROVIDED_TO_PLUGINS):
                continue
            paths[name] = artifact.resolve()
            parts_of[name].add(part)
    group, artifact_id, version, classifier, kind = REGISTRY
    archive = context.project(group, artifact_id).at_version(version).artifact(classifier, kind)
    name = f"{group}:{artifact_id}:{kind}:{classifier}:{version}"
    paths[name] = archive.resolve()
    parts_of[name].add("registry")
    return render_lock(_locked(name, path, parts_of[name]) for name, path in paths.items())


def _locked(name: str, path: Path, parts: set[str]) -> LockedFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return LockedFile(name, digest, path.stat().st_size, tuple(sorted(parts)))


if __name__ == "__main__":
    Path(__file__).with_name(LOCK_FILE).write_text(resolve(), encoding="utf-8")
