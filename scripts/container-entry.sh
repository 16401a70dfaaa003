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
  printf '*:*:*:stillframe:%s\n' "$(cat "$database/password")" >"$database/pgpass"
  exit 0
fi

# A worker has no such volume, and needs neither.
if [ -z "${JWT_SECRET:-}" ] && [ -s "$api/jwt-secret" ]; then
  JWT_SECRET=$(cat "$api/jwt-secret")
  export JWT_SECRET
fi
if [ -z "${SECRETS_KEY:-}" ] && [ -s "$api/secrets-key" ]; then
  SECRETS_KEY=$(cat "$api/secrets-key")
  export SECRETS_KEY
fi
exec "$@"
