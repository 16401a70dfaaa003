#!/bin/sh
# Runs a command with the installation's secrets: those of the environment, else those that `make-secrets` left in the
# volume. Compose has no other way to hand a generated value to several services.
set -eu
api=/run/stillframe/api
database=/run/stillframe/database

# make FILE: a new secret in FILE unless it holds one; whole or not there at all.
make() {
  [ -s "$1" ] && return
  head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n' >"$1.new"
  mv "$1.new" "$1"
}

if [ "${1:-}" = make-secrets ]; then
  umask 077
  make "$api/jwt-secret"
  make "$api/secrets-key"
  make "$database/password"
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
exec "$@"
