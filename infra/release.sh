#!/usr/bin/env bash
# Builds the wheel into dist/, installs it with its locked dependencies into an environment that has nothing else, runs
# it there, and writes what is in it as a CycloneDX document. Publishes nothing.
#   bash infra/release.sh BIN   (the folder of the project's own environment's programs)
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "${1:?the folder of the environment\'s programs}")
if [ -n "$(git status --porcelain)" ]; then
  echo "the working tree has changes that are not committed: a release is what a commit holds" >&2
  exit 6
fi
rm -rf dist
"$bin/uv" build --quiet --wheel --sdist --no-build-isolation --python "$bin/python" --out-dir dist
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
"$bin/uv" venv --quiet --python "$bin/python" "$empty/venv"
VIRTUAL_ENV="$empty/venv" "$bin/uv" pip install --quiet --require-hashes -r requirements/runtime.lock
VIRTUAL_ENV="$empty/venv" "$bin/uv" pip install --quiet --no-deps dist/*.whl
(cd "$empty" && ./venv/bin/towpath --help >/dev/null)
"$bin/cyclonedx-py" requirements --pyproject pyproject.toml --output-reproducible -o dist/towpath.cdx.json requirements/runtime.lock
(cd dist && sha256sum -- *.whl *.tar.gz *.cdx.json >SHA256SUMS)
ls dist
