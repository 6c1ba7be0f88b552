#!/usr/bin/env bash
# Resolves the lock files anew: exact versions with hashes, no download address, for every Python that Towpath declares.
#   bash requirements/lock.sh [path of uv]
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${1:-uv}
common=(--quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate)
"$uv" pip compile "${common[@]}" --output-file requirements/bootstrap.lock - <<<'uv'
"$uv" pip compile "${common[@]}" --output-file requirements/all.lock --extra stack --group dev --constraints requirements/bootstrap.lock pyproject.toml
"$uv" pip compile "${common[@]}" --output-file requirements/bench.lock requirements/bench.in
"$uv" pip compile "${common[@]}" --output-file requirements/runtime.lock --constraints requirements/all.lock pyproject.toml
# What a new project is pinned to: the engine's dependencies, those of the local stack, and pytest.
"$uv" pip compile "${common[@]}" --output-file towpath/scaffold/templates/requirements.lock --extra stack --constraints requirements/all.lock pyproject.toml - <<<'pytest'
