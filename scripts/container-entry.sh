#!/bin/sh
# Runs a command with the installation's secrets: those of the environment, else those that `make-secrets` left in the
# volume. Compose has no other way to hand a generated value to several services.
set -eu
api=/run/stillframe/api
database=/run/stillframe/database

# make FILE: a new secret in FILE unless it holds one; whole or not there at all. Letters and digits, for URLs and command lines.
make() {
  [ -s "$1" ] && return
  head -c 32 /dev/urandom | base64 | tr -d '+/=\n' >"$1.new"
  mv "$1.new" "$1"
}

if [ "${1:-}" = make-secrets ]; then
  umask 077
  make "$api/jwt-secret"
  make "$api/secrets-key"
  make "$database/password"
  make "$database/redis-password"
  exit 0
fi

# take NAME FILE: the variable NAME from FILE, unless it is set or there is no such file: workers have no $api.
take() {
  if [ -z "$(printenv "$1")" ] && [ -s "$2" ]; then
    export "$1=$(cat "$2")"
  fi
}

take JWT_SECRET "$api/jwt-secret"
take SECRETS_KEY "$api/secrets-key"
take PGPASSWORD "$database/password"
# A URL has no place for a password that only a file knows.
if [ -n "${REDIS_SERVER:-}" ] && [ -z "${REDIS_URL:-}" ] && [ -s "$database/redis-password" ]; then
  export "REDIS_URL=redis://:$(cat "$database/redis-password")@$REDIS_SERVER"
fi
exec "$@"
