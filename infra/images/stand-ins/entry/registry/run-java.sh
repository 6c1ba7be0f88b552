#!/bin/bash
# Starts the registry. JAVA_OPTS replaces the options that would be chosen otherwise, JAVA_OPTS_APPEND adds to them.
set -euo pipefail
cd /deployments
# shellcheck disable=SC2086 # options are words
exec java ${JAVA_OPTS--XX:MaxRAMPercentage=80.0 ${JAVA_OPTS_APPEND:-}} -jar quarkus-run.jar "$@"
