#!/usr/bin/env bash
# A laptop is closed: its connection vanishes without a FIN. The hub detects that by itself, within the two seconds configured here.
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "$0")/lib.sh"

cd "$work" || exit
# The laptop, in a network of its own; it waits for its link to subscribe, and for the command to lose it.
unshare --net bash -euc '
  echo entered >laptop
  until ip link set away up 2>/dev/null; do sleep 0.1; done
  ip address add 10.77.0.2/24 dev away
  until [ -s hub ]; do sleep 0.1; done
  curl -sSN --retry 50 --retry-connrefused "http://10.77.0.1:8080/stream?topic=chat" >stream &
  until [ -e close ]; do sleep 0.1; done
  ip link set away down
  wait' &
laptop=$!
wait_for laptop entered
ip link add here type veth peer name away netns "$laptop"
ip address add 10.77.0.1/24 dev here
ip link set here up
tidings serve --listen 10.77.0.1:8080 --admin-listen 127.0.0.1:9090 --no-auth --heartbeat-secs 1 --dead-peer-secs 2 >hub 2>&1 &
wait_for hub 'http://10\.77\.0\.1:8080'

metric() {
  curl -sS http://127.0.0.1:9090/metrics >metrics
  sed -n "s/^$1 //p" metrics
}
wait_for stream '^retry: [0-9]+$'
[ "$(metric tidings_subscribers)" = 1 ]

touch close
# Without detection, the kernel retransmits for about fifteen minutes.
for ((tenths = 300; ; tenths--)); do
  # One connection is that of the metrics request.
  if [ "$(metric tidings_subscribers)" = 0 ] && [ "$(metric tidings_connections_open)" = 1 ]; then break; fi
  if ((tenths == 0)); then
    echo "the hub still holds the connection of a client that vanished" >&2
    exit 1
  fi
  sleep 0.1
done
