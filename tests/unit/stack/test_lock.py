"""The lock says what the parts are made of, and not where they come from."""

import re
from importlib import resources

from towpath.stack.lock import LockedFile, load_lock, parse_lock, render_lock

JAR = LockedFile("org.apache.kafka:kafka-clients:jar:4.3.1", "ab" * 32, 12, ("connect", "kafka"))
ARCHIVE = LockedFile("io.apicurio:apicurio-registry-app:tar.gz:all:3.3.3", "cd" * 32, 34, ("registry",))


def test_coordinates_give_the_path_in_any_repository() -> None:
    """Group, artifact, version and classifier lie where Maven repositories lay them."""
    assert JAR.repository_path == "org/apache/kafka/kafka-clients/4.3.1/kafka-clients-4.3.1.jar"
    assert ARCHIVE.repository_path == ("io/apicurio/apicurio-registry-app/3.3.3/apicurio-registry-app-3.3.3-all.tar.gz")


def test_what_is_rendered_is_read_back() -> None:
    """A lock survives being written and read, in the order of its coordinates."""
    assert parse_lock(render_lock([JAR, ARCHIVE])).files == (ARCHIVE, JAR)


def test_the_committed_lock_is_whole() -> None:
    """Every file has a SHA-256 and a size; no address is in it; rendering it anew changes nothing."""
    text = resources.files("towpath.stack").joinpath("parts.lock").read_text(encoding="utf-8")
    lock = load_lock()
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) and file.size_bytes > 0 for file in lock.files)
    assert "://" not in text
    assert render_lock(lock.files) == text


def test_no_part_has_two_versions_of_one_library() -> None:
    """On one class path each artifact is there once."""
    for part in ("kafka", "connect", "debezium"):
        names = [file.coordinates.rsplit(":", 1)[0] for file in load_lock().of(part)]
        assert len(names) == len(set(names))


def test_the_plugin_brings_no_class_that_the_worker_provides() -> None:
    """A second copy of Connect's API in the plugin's class loader would be another class."""
    brought = {file.coordinates.split(":")[0] for file in load_lock().of("debezium")}
    assert not brought & {"org.apache.kafka", "org.slf4j", "at.yawk.lz4", "org.xerial.snappy"}


def test_kafka_and_connect_have_a_logging_binding() -> None:
    """Without one a failed boot would say nothing."""
    for part in ("kafka", "connect"):
        names = {file.coordinates.split(":")[1] for file in load_lock().of(part)}
        assert {"log4j-core", "log4j-slf4j-impl"} <= names
