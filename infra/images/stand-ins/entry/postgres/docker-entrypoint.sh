#!/bin/bash
# Makes the cluster on the first start, runs /docker-entrypoint-initdb.d in it, then becomes the server.
set -euo pipefail

# from_file NAME DEFAULT sets NAME from NAME_FILE's content where only that is given.
from_file() {
  local name=$1 file="${1}_FILE"
  [ -z "${!name:-}" ] || [ -z "${!file:-}" ] || { echo "$name and $file exclude each other" >&2; exit 1; }
  if [ -n "${!file:-}" ]; then printf -v "$name" '%s' "$(<"${!file}")"; fi
  printf -v "$name" '%s' "${!name:-$2}"
  export "${name?}"
  unset "$file"
}

[ "${1:0:1}" != - ] || set -- postgres "$@"
[ "$1" = postgres ] || exec "$@"

from_file POSTGRES_PASSWORD ''
from_file POSTGRES_USER postgres
from_file POSTGRES_DB "$POSTGRES_USER"
from_file POSTGRES_INITDB_ARGS ''
mkdir -p "$PGDATA"
chmod 700 "$PGDATA"
if [ "$(id -u)" = 0 ]; then
  chown -R postgres "$PGDATA" /var/run/postgresql
  exec setpriv --reuid postgres --regid postgres --init-groups "$BASH_SOURCE" "$@"
fi

query() { PGHOST= psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" "$@"; }

make_cluster() {
  [ -n "$POSTGRES_PASSWORD" ] || { echo "POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE must be set" >&2; exit 1; }
  # shellcheck disable=SC2086 # arguments are words
  initdb --username "$POSTGRES_USER" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") $POSTGRES_INITDB_ARGS
  printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
  # Without TCP, so that nobody takes the half-made cluster for the server.
  pg_ctl -w start -o "-c listen_addresses= -k /var/run/postgresql"
  export PGPASSWORD=$POSTGRES_PASSWORD PGHOST=/var/run/postgresql
  [ "$POSTGRES_DB" = postgres ] || query -h /var/run/postgresql -d postgres -c "CREATE DATABASE \"$POSTGRES_DB\""
  local file
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sql) query -h /var/run/postgresql -d "$POSTGRES_DB" -f "$file" ;;
      *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
    esac
  done
  pg_ctl -w -m fast stop
  unset PGPASSWORD PGHOST
}

[ -s "$PGDATA/PG_VERSION" ] || make_cluster
unset POSTGRES_PASSWORD
[[ " $* " == *unix_socket_directories* ]] || set -- "$@" -c unix_socket_directories=/var/run/postgresql
exec "$@"
