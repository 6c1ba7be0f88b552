"""Brings the compose file up on a real Engine, once for all tests of this ring, and takes it away again.

What the images are is decided here and told in `images`: the official ones where they can be pulled, else stand-ins.
`TOWPATH_IMAGES=official` or `=stand-ins` decides it from outside.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pytest_docker.plugin import Services

from towpath.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
UP_SECONDS_MAX = 600
PORTS = ("KAFKA", "POSTGRES", "REGISTRY", "CONNECT")


def cannot(reason: str) -> NoReturn:
    """End the test: skipped on a developer's machine that cannot run it, failed where it must run."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def answers(*command: str, seconds: float = 30.0) -> bool:
    """Return whether `command` ends well in time."""
    try:
        return subprocess.run(command, check=False, capture_output=True, timeout=seconds).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def run(*command: str | Path, seconds: float = 900.0) -> str:
    """Run `command` in the project's folder and return its standard output; a failure shows all that it said."""
    done = subprocess.run(command, check=False, cwd=ROOT, text=True, capture_output=True, timeout=seconds)
    if done.returncode:
        said = f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        pytest.fail(f"{' '.join(map(str, command))} returned {done.returncode}\n{said}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Deployment:
    """The containers that are up. `settings` reach them from this machine, through the published ports."""

    project: str
    images: str
    settings: Settings

    def compose(self, *arguments: str, seconds: float = 300.0) -> str:
        """Run `docker compose` for this deployment and return what it prints."""
        return run("docker", "compose", "-p", self.project, "--profile", "demo", *arguments, seconds=seconds)

    def start(self) -> None:
        """Bring up parts, set-up and workers, by health. What did not come up tells its last words."""
        command = ["docker", "compose", "-p", self.project, "--profile", "core", "up", "-d", "--wait"]
        command += ["--wait-timeout", str(UP_SECONDS_MAX)]
        done = subprocess.run(
            command, check=False, cwd=ROOT, text=True, capture_output=True, timeout=UP_SECONDS_MAX + 60
        )
        if done.returncode:
            states = self.compose("ps", "-a", "--format", "table {{.Service}}\t{{.Status}}")
            pytest.fail(f"{done.stderr[-2000:]}\n{states}\n{self.compose('logs', '--tail', '15')[-12000:]}")

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what the Engine says of each container, by its service's name."""
        ids = self.compose("ps", "-a", "-q").split()
        found = json.loads(run("docker", "inspect", *ids))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}


@pytest.fixture(scope="session")
def engine() -> None:
    """Make sure that an Engine and Compose v2 answer; root may install them, others need them there."""
    if answers("docker", "info") and answers("docker", "compose", "version"):
        return
    if os.geteuid() != 0:
        cannot("no Docker Engine with Compose v2 answers, and only root can start one: sudo infra/docker/engine.sh up")
    run(ROOT / "infra" / "docker" / "engine.sh", "up")


@pytest.fixture(scope="session")
def images(engine: None) -> str:
    """Make sure that the images are there, and return which they are: "official" or "stand-ins"."""
    wanted = os.environ.get("TOWPATH_IMAGES")
    if wanted is None:
        wanted = "official" if answers("docker", "manifest", "inspect", "postgres:18", seconds=20.0) else "stand-ins"
    if wanted == "stand-ins":
        run(sys.executable, ROOT / "infra" / "images" / "build.py", seconds=1500.0)
    else:
        run("docker", "compose", "--profile", "demo", "pull", "--ignore-buildable")
        run("docker", "compose", "--profile", "demo", "build")
    return wanted


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the deployment ports of its own and fresh passwords, by the variables that anyone would use."""
    secrets = tmp_path_factory.mktemp("secrets")
    with pytest.MonkeyPatch.context() as patch:
        for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True):
            patch.setenv(f"TOWPATH_STACK__{name}_PORT", str(port))
        patch.setenv("TOWPATH_SECRETS_DIR", str(secrets))
        run("bash", ROOT / "infra" / "compose" / "secrets.sh")
        yield
    shutil.rmtree(secrets)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on at this moment, no two the same."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    """Name the committed file, with no override: the images, whichever they are, bear the official names."""
    return str(ROOT / "docker-compose.yml")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    """Keep this deployment apart from any other on the same Engine."""
    return f"towpath-test-{os.getpid()}"


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    """Start nothing yet: `deployment` does, once what fails there is sure to be cleaned up."""
    return []


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    """Remove containers, network and volumes of every profile."""
    return ["--profile demo down --volumes --remove-orphans --timeout 5"]


@pytest.fixture(scope="session")
def deployment(
    images: str, environment: None, docker_services: Services, docker_compose_project_name: str
) -> Deployment:
    """Bring the compose file up for all tests of this ring."""
    deployment = Deployment(docker_compose_project_name, images, load_settings(ROOT))
    deployment.start()
    return deployment
