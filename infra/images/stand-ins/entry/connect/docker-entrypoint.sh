#!/bin/bash
# Turns CONNECT_* and the names without that prefix into connect-distributed.properties, starts the worker.
set -euo pipefail

require() {
  [ -n "${!1:-}" ] || { echo "$1 must be set" >&2; exit 1; }
}

[ "${1:-start}" = start ] || exec "$@"
for name in GROUP_ID CONFIG_STORAGE_TOPIC OFFSET_STORAGE_TOPIC; do require "$name"; done

host=$(hostname -i | cut -d' ' -f1)
json=org.apache.kafka.connect.json.JsonConverter
export CONNECT_BOOTSTRAP_SERVERS=${BOOTSTRAP_SERVERS:-0.0.0.0:9092}
export CONNECT_GROUP_ID=$GROUP_ID
export CONNECT_CONFIG_STORAGE_TOPIC=$CONFIG_STORAGE_TOPIC
export CONNECT_OFFSET_STORAGE_TOPIC=$OFFSET_STORAGE_TOPIC
export CONNECT_STATUS_STORAGE_TOPIC=${STATUS_STORAGE_TOPIC:-connect-status}
export CONNECT_KEY_CONVERTER=${KEY_CONVERTER:-$json}
export CONNECT_VALUE_CONVERTER=${VALUE_CONVERTER:-$json}
export CONNECT_OFFSET_FLUSH_INTERVAL_MS=${OFFSET_FLUSH_INTERVAL_MS:-60000}
export CONNECT_OFFSET_FLUSH_TIMEOUT_MS=${OFFSET_FLUSH_TIMEOUT_MS:-5000}
export CONNECT_TASK_SHUTDOWN_GRACEFUL_TIMEOUT_MS=${SHUTDOWN_TIMEOUT:-10000}
export CONNECT_REST_ADVERTISED_HOST_NAME=${ADVERTISED_HOST_NAME:-$host}
export CONNECT_REST_ADVERTISED_PORT=${ADVERTISED_PORT:-8083}
export CONNECT_PLUGIN_PATH=${CONNECT_PLUGIN_PATH:-$KAFKA_CONNECT_PLUGINS_DIR}

# The name's prefix goes, capitals become small letters and every underscore a dot: `plugin.path`, never `a_b`.
properties=/kafka/config/connect-distributed.properties
: >"$properties"
while IFS='=' read -r -d '' name value; do
  [[ $name == CONNECT_* ]] || continue
  name=${name#CONNECT_}
  name=${name,,}
  printf '%s=%s\n' "${name//_/.}" "$value" >>"$properties"
done < <(env -0)

# shellcheck disable=SC2086 # options are words
exec java ${HEAP_OPTS:--Xms256M -Xmx2G} ${KAFKA_JVM_PERFORMANCE_OPTS:-} -Dlog4j2.configurationFile=/kafka/log4j2.properties \
  ${KAFKA_OPTS:-} -cp '/kafka/libs/*' org.apache.kafka.connect.cli.ConnectDistributed "$properties"
