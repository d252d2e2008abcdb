#!/usr/bin/env bash
# Restore a backup: restore.sh FILE.dump, into the database of DATABASE_URL. Servers may run.
#
# What is in the database is replaced, in one transaction: a restore that fails leaves everything as it was. Then the
# schema is brought to this version, and the database gets a new epoch, because the revisions after the backup are
# given again to other changes (docs/operating.md, "Restoring a backup"). The audit log in a database of its own is not
# touched: it keeps what the backup does not know. Restore it only when it is lost: restore.sh --audit FILE.audit.dump
set -euo pipefail
. "$(dirname "$0")/connection.sh"
audit=
if [ "${1:-}" = --audit ]; then audit=1; shift; fi
[ $# -eq 1 ] || fail "usage: restore.sh [--audit] FILE" 2
need pg_restore pointsman-server
pg_restore --list "$1" >/dev/null || fail "$1 is no backup that pg_restore can read"
contents=$(pg_restore --list "$1")
if [ -n "$audit" ]; then
    [ -n "${POINTSMAN_AUDIT_DATABASE_URL:-}" ] || fail "set POINTSMAN_AUDIT_DATABASE_URL" 2
    grep -q "TABLE DATA public audit_chain" <<<"$contents" || fail "$1 holds no audit log"
    split_password "$POINTSMAN_AUDIT_DATABASE_URL"
else
    grep -q "TABLE DATA public clock" <<<"$contents" || fail "$1 holds no routes: is it a backup of the audit log?"
    split_password "$DATABASE_URL"
fi
pg_restore --dbname="$url" --clean --if-exists --no-owner --no-privileges --single-transaction --exit-on-error "$1"
unset PGPASSWORD
pointsman-server migrate
[ -n "$audit" ] || pointsman-server restore --yes
