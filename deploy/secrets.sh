#!/bin/sh
# Makes what is missing in secrets/, and changes nothing that is there: run it as often as you like.
#
#   OPENAI_API_KEY=sk-… ./secrets.sh
#
# Only you may enter the folder; its files can be read by whomever they are mounted for, whose numbers are not yours.
set -eu
cd "$(dirname "$0")"
manifold=${MANIFOLD:-docker run --rm llm-manifold:${MANIFOLD_TARGET:-gateway}}   # what makes gateway keys
umask 077
mkdir -p secrets
chmod 700 secrets

fail() { echo "error: $1" >&2; exit 1; }
put() { # NAME: what comes on stdin, whole or not at all
    trap 'rm -f secrets/.new' EXIT
    cat > secrets/.new
    [ -s secrets/.new ] || fail "nothing came for secrets/$1"
    chmod 644 secrets/.new
    mv secrets/.new "secrets/$1"
    echo "made secrets/$1" >&2
}
has() { [ -s "secrets/$1" ]; }

for name in redis_password grafana_password; do
    has $name || od -An -N 24 -t x1 /dev/urandom | tr -d ' \n' | put $name
done
for name in admin_key metrics_key; do
    # shellcheck disable=SC2086 # a command and its words
    has $name || $manifold keys create $name --config /dev/null --quiet | tr -d '\n' | put $name
done
if ! has openai_api_key; then
    [ -n "${OPENAI_API_KEY:-}" ] || fail "put the vendor's key into $PWD/secrets/openai_api_key, or set OPENAI_API_KEY"
    printf %s "$OPENAI_API_KEY" | put openai_api_key
fi
