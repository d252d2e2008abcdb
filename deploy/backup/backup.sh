#!/usr/bin/env bash
# Back up PostgreSQL: backup.sh DIRECTORY. Servers may run; each file is one consistent moment.
#
# Writes pointsman-TIME.dump, and pointsman-TIME.audit.dump where POINTSMAN_AUDIT_DATABASE_URL is set. A file has its
# name only when it is complete and its table of contents can be read. Redis is a cache and Kafka can be filled from
# PostgreSQL: neither needs a backup.
set -euo pipefail
. "$(dirname "$0")/connection.sh"
[ $# -eq 1 ] || fail "usage: backup.sh DIRECTORY" 2
need pg_dump pg_restore
umask 077
mkdir -p "$1"
name=$1/pointsman-$(date -u +%Y%m%dT%H%M%SZ)
trap 'rm -f "$name".*part' EXIT

dump() {
    split_password "$1"
    pg_dump --dbname="$url" --format=custom --no-owner --no-privileges --file="$2.part"
    pg_restore --list "$2.part" >/dev/null
    mv "$2.part" "$2"
    echo "$2"
}

dump "$DATABASE_URL" "$name.dump"
if [ -n "${POINTSMAN_AUDIT_DATABASE_URL:-}" ]; then
    dump "$POINTSMAN_AUDIT_DATABASE_URL" "$name.audit.dump"
fi
