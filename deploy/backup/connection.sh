# Sourced by backup.sh and restore.sh.

# Sets `url` to $1 without its password, and PGPASSWORD to the password: arguments are shown to everybody by ps.
split_password() {
    url=$1
    unset PGPASSWORD
    if [[ $1 =~ ^(postgres(ql)?://[^:/@]+):([^@/]*)@(.*)$ ]]; then
        url="${BASH_REMATCH[1]}@${BASH_REMATCH[4]}"
        PGPASSWORD=$(printf '%b' "${BASH_REMATCH[3]//%/\\x}")
        export PGPASSWORD
    fi
}

fail() {
    echo "$(basename "$0"): $1" >&2
    exit "${2:-1}"
}

need() {
    local name
    for name in "$@"; do
        command -v "$name" >/dev/null || fail "$name is not on PATH: install the PostgreSQL client of your server's version, and pointsman-server"
    done
    [ -n "${DATABASE_URL:-}" ] || fail "set DATABASE_URL, and POINTSMAN_AUDIT_DATABASE_URL if the audit log has a database of its own" 2
}
