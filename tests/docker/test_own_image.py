"""The image of a project of a user's own, built from what `towpath new` wrote: its workers start in it, as nobody."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import run
from tests.own_project import begin, install

NAME = "ownimage"
IMAGE = f"{NAME}/towpath:latest"
CERTIFICATES = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
# The build reaches the registries as this machine does.
OVERRIDE = f"""
services:
  setup:
    build: {{network: host, secrets: [certificates]}}
secrets:
  certificates: {{file: "{CERTIFICATES}"}}
"""


@pytest.fixture(scope="module")
def image(images: str) -> Iterator[str]:
    """Begin a project from the wheel, with the wheel beside it, and build its image; return its name."""
    folder = Path(tempfile.mkdtemp(prefix="towpath-image-"))
    try:
        project = begin(folder, install(folder), NAME)
        shutil.copytree(folder / "dist", project.root / "dist")
        project.towpath("compose", "--check")
        override = folder / "override.yml"
        override.write_text(OVERRIDE, encoding="utf-8")
        files = ("-f", project.root / "docker-compose.yml", "-f", override, "--project-directory", project.root)
        run("docker", "compose", *files, "--profile", "core", "build", "--quiet", "setup")
        yield IMAGE
        run("docker", "image", "rm", "--force", IMAGE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_image_of_a_new_project_holds_the_project(image: str) -> None:
    """It names the project's workers, proves its contracts without a network, writes nowhere, and is nobody."""
    alone = ("docker", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", image)
    assert "0.1.0" in run(*alone, "--version")
    assert set(json.loads(run(*alone, "run", "--json"))) >= {"saga:place_order", "service:order", "service:payment"}
    assert json.loads(run(*alone, "contracts", "test", "--json"))["ok"]
    assert json.loads(run("docker", "image", "inspect", image))[0]["Config"]["User"] == "10001:10001"
