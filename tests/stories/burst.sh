#!/usr/bin/env bash
# All clients reconnect at once while the hub is busy (here: stopped). The kernel queues their connections, and none is lost.
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "$0")/lib.sh"

clients=4000
burst=$(dirname "$(realpath "$0")")/../lib/burst.mjs
cd "$work" || exit
tidings serve >hub 2>&1 &
hub=$!
wait_for hub 'http://127\.0\.0\.1:8080'

# Connections of this network that were dropped because the queue of a listener was full.
overflows() {
  awk '/^TcpExt:/ { if (!names++) split($0, name); else for (i in name) if (name[i] == "ListenOverflows") print $i }' /proc/net/netstat
}
before=$(overflows)
kill -STOP "$hub"
node "$burst" http://127.0.0.1:8080/healthz "$clients" >answers 2>&1 &
wait_for answers "^connected $clients$" 30
[ "$(overflows)" = "$before" ]
kill -CONT "$hub"
wait_for answers "^answered $clients$"
[ "$(overflows)" = "$before" ]
