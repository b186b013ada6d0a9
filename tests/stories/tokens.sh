#!/usr/bin/env bash
# A model answers token by token. During the answer the reader refreshes the page, and then the hub is killed and restarted: no token is
# missing or duplicated, and no gap is reported.
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "$0")/lib.sh"

cd "$work" || exit
readonly url=http://127.0.0.1:8080/topics/answer-7
seq -f 'token %g' 300 >answer

start_hub() {
  tidings serve --store ./events --retain 1h >hub 2>&1 &
  hub=$!
  wait_for hub 'http://127\.0\.0\.1:8080'
}

# The application repeats each token until it is acknowledged. The key prevents duplicates.
answer() {
  local token
  while IFS= read -r token; do
    until curl -sS -f -o /dev/null -H "Idempotency-Key: answer-7-${token// /-}" -d "$token" "$url"; do
      sleep 0.1
    done
  done <answer
}

# Parses a stream as the standard requires: an event is complete at its blank line.
dispatched() {
  awk '
    /^id: / { id = substr($0, 5) }
    /^event: / { kind = " (" substr($0, 8) ")" }
    /^data: / { data = substr($0, 7); has_data = 1 }
    /^$/ { if (has_data) print data kind; seen = id; has_data = 0; kind = "" }
    END { print seen >"/dev/stderr" }' "$1" 2>"$1.last-event-id"
}

start_hub
tidings subscribe answer-7 --since earliest >reader 2>reader-log &
answer 2>answer-log &

# The page is refreshed: it has no id any more, and requests the answer from its beginning.
wait_for reader '^token 50$'
curl -sS -N "$url?since=earliest" >refreshed 2>refreshed-log &
wait_for refreshed '^data: token 100$'

kill -KILL "$hub"
wait "$hub" 2>/dev/null || true
start_hub
# A browser reconnects by itself, with the id of its last event.
dispatched refreshed >received
touch resumed
curl -sS -N -H "Last-Event-ID: $(cat refreshed.last-event-id)" "$url?since=earliest" >resumed &
wait_for resumed '^data: token 300$'
wait_for reader '^token 300$'
wait_for resumed '^$'
dispatched resumed >>received

cmp received answer
cmp reader answer
if grep -i gap reader-log; then exit 1; fi
