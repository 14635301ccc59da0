#!/bin/sh
# Makes the database on an empty volume, then becomes what it is asked to run. POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB and
# PGDATA mean what they mean in the official image. A start that was killed halfway leaves nothing under the final name.
set -eu
export POSTGRES_USER="${POSTGRES_USER:-postgres}"
POSTGRES_DB="${POSTGRES_DB:-$POSTGRES_USER}"

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?names no password: set it from a Secret}"
    new="$PGDATA.new"
    rm -rf "$new"
    secret=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" > "$secret"
    initdb --pgdata="$new" --username="$POSTGRES_USER" --pwfile="$secret" --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8
    rm "$secret"
    echo 'host all all all scram-sha-256' >> "$new/pg_hba.conf"
    if [ "$POSTGRES_DB" != postgres ]; then
        printf 'CREATE DATABASE "%s";\n' "$POSTGRES_DB" | postgres --single -j -D "$new" postgres > /dev/null
    fi
    # An empty folder with this name is the image's or the volume's own.
    if [ -d "$PGDATA" ]; then rmdir "$PGDATA"; fi
    mv "$new" "$PGDATA"
fi
unset POSTGRES_PASSWORD
if [ "$1" = postgres ]; then set -- "$@" -c "listen_addresses=*"; fi
exec "$@"
