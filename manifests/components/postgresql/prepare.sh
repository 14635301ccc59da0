#!/bin/sh
# Makes the database on an empty volume, and gives the two users the passwords that their Secrets hold. What was cut short leaves nothing
# under the final name.
set -eu
umask 077

say() {
    # One user process, no server: statements in, nothing out but errors.
    postgres --single -j -D "$1" -c log_min_error_statement=panic postgres >/dev/null
}

# The password as an SQL string.
password() { printf "'%s'" "$(sed "s/'/''/g" "/secrets/$1/password")"; }

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    new=$PGDATA.new
    rm -rf "$new"
    initdb --pgdata="$new" --username=postgres --auth-local=peer --auth-host=scram-sha-256 --encoding=UTF8 --locale=C --data-checksums
    echo 'host all all all scram-sha-256' >>"$new/pg_hba.conf"
    for name in tts mlflow; do
        printf 'CREATE ROLE %s LOGIN;\n\n' "$name" | say "$new"
        printf 'CREATE DATABASE %s OWNER %s;\n\n' "$name" "$name" | say "$new"
        printf 'REVOKE CONNECT ON DATABASE %s FROM PUBLIC;\n\n' "$name" | say "$new"
    done
    rm -rf "$PGDATA"
    mv "$new" "$PGDATA"
fi
printf 'ALTER ROLE tts PASSWORD %s;\n\n' "$(password study)" | say "$PGDATA"
printf 'ALTER ROLE mlflow PASSWORD %s;\n\n' "$(password mlflow)" | say "$PGDATA"
