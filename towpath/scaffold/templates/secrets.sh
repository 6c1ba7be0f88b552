#!/bin/bash
# Makes the passwords of the compose file, once: random, one file each, named like the settings that they are.
#
#   bash infra/compose/secrets.sh [FOLDER]    default: $TOWPATH_SECRETS_DIR, else infra/compose/secrets
#
# A file that is there is left alone. To bring your own passwords, write the files yourself.
set -euo pipefail
folder=${1:-${TOWPATH_SECRETS_DIR:-$(dirname "${BASH_SOURCE[0]}")/secrets}}
mkdir -p "$folder"
# The containers' users differ from yours and must read the files; the folder keeps everyone else out.
chmod 700 "$folder"
for name in postgres__password postgres__capture_password; do
  [ -s "$folder/$name" ] && continue
  od -An -N 24 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$name"
  chmod 444 "$folder/$name"
  echo "made $folder/$name" >&2
done
