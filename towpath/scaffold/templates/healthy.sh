#!/bin/bash
# Answers whether a part is ready, by its own protocol. Bash alone: the official images agree on nothing else.
#
#   healthy.sh http PORT PATH   PATH answers 200
#   healthy.sh worker PORT FILE the worker has said, by FILE, that it serves, and answers on its metrics port
#   healthy.sh kafka PORT       the broker answers a metadata request, and counts itself among the live brokers
set -euo pipefail

http() {
  exec 3<>"/dev/tcp/127.0.0.1/$1"
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
  local status
  IFS= read -r -t 3 status <&3
  [[ $status == HTTP/1.[01]\ 200* ]] || { echo "$2: ${status%$'\r'}"; exit 1; }
}

worker() {
  [ -e "$2" ] || { echo "the worker does not serve yet"; exit 1; }
  http "$1" /metrics
}

# Metadata, version 1: length 14, then API key 3, version 1, correlation id 1, no client id, no topics. The answer
# begins with its length, the correlation id and the number of live brokers, each in 4 bytes. A broker that is up but
# still fenced by its controller is not among them. https://kafka.apache.org/protocol#The_Messages_Metadata
kafka() {
  exec 3<>"/dev/tcp/127.0.0.1/$1"
  printf '\0\0\0\016\0\003\0\001\0\0\0\001\377\377\0\0\0\0' >&3
  local LC_ALL=C live=0 position byte
  for position in {0..11}; do
    # Up to the next NUL, but one byte at most: a NUL itself gives an empty string, which counts as 0 below.
    IFS= read -r -d '' -n 1 -t 3 byte <&3 || { echo "no answer from the broker"; exit 1; }
    printf -v byte '%d' "'$byte"
    [ "$position" -lt 8 ] || live=$((live << 8 | byte & 255))
  done
  [ "$live" -gt 0 ] || { echo "the broker is still fenced"; exit 1; }
}

"$@"
