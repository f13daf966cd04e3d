#!/bin/sh
# The owner of the databases, who is no superuser. The timescaledb container runs this when it creates its server.
set -eu
psql --username "$POSTGRES_USER" --no-psqlrc --set ON_ERROR_STOP=1 --set password="$DB_PASSWORD" <<'SQL'
CREATE ROLE stocks_owner LOGIN CREATEDB CREATEROLE PASSWORD :'password';
SQL
