#!/usr/bin/env bash
# A new user of the 2012 answer gets it working in a minute.
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "$0")/lib.sh"

make demo >"$work/demo" 2>&1 &
wait_for "$work/demo" 'http://127\.0\.0\.1:8080' 240
# The demo prints the next two commands.
wait_for "$work/demo" 'curl -N http://127\.0\.0\.1:8080/stream$'
wait_for "$work/demo" 'curl -d message=hello http://127\.0\.0\.1:8080/post$'

curl -sS -N http://127.0.0.1:8080/stream >"$work/stream" &
wait_for "$work/stream" '^retry: [0-9]+$'
curl -sS -d message=hello http://127.0.0.1:8080/post
wait_for "$work/stream" '^data: \[[0-9]{2}:[0-9]{2}:[0-9]{2}\] anonymous: hello$'
wait_for "$work/demo" '^\[[0-9]{2}:[0-9]{2}:[0-9]{2}\] anonymous: hello$'
