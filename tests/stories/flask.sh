#!/usr/bin/env bash
# A Flask developer keeps `red.publish('chat', …)` and deletes /stream.
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "$0")/lib.sh"

flask=$PWD/tests/.cache/python/bin/flask
cd examples/flask
redis-server --save '' --dir "$work" >"$work/redis" 2>&1 &
wait_for "$work/redis" 'Ready to accept connections'
tidings serve --stream chat --bridge 'redis://localhost?channels=chat' >"$work/hub" 2>&1 &
wait_for "$work/hub" 'the bridge is listening'
PYTHONDONTWRITEBYTECODE=1 "$flask" --app app run >"$work/flask" 2>&1 &
wait_for "$work/flask" 'Running on http://127\.0\.0\.1:5000'

curl -sS -N http://127.0.0.1:8080/stream >"$work/stream" &
wait_for "$work/stream" '^retry: [0-9]+$'
curl -sS -d message=hello http://127.0.0.1:5000/post
wait_for "$work/stream" '^data: \[[0-9]{2}:[0-9]{2}:[0-9]{2}\] anonymous: hello$'
redis-cli PUBLISH chat hi >/dev/null
wait_for "$work/stream" '^data: hi$'
# The first event was a message, not the number of the subscription.
test "$(grep -c '^data: ' "$work/stream")" = 2
