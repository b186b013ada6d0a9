#!/usr/bin/env bash
# An operator runs three nodes on one Redis behind nginx, with the commands, addresses and configuration of docs/scaling-out.md. Each
# machine has a network of its own; the one with nginx also runs Redis.
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "$0")/lib.sh"

document=$PWD/docs/scaling-out.md
client=$PWD/tests/clients/node/eventsource.mjs
cd "$work" || exit
ip address add 10.0.0.100/32 dev lo
echo '10.0.0.100 redis.internal www.example' >hosts
cat /etc/hosts >>hosts
mount --bind hosts /etc/hosts

redis-server --bind 10.0.0.100 --protected-mode no --save '' --dir "$work" >redis 2>&1 &
wait_for redis 'Ready to accept connections'

tidings key new --name backend >made
KEY=$(head -n 1 made)
export KEY
cat >tidings.toml <<'TOML'
[[key]]
name = "backend"
secret_env = "KEY"
publish = ["*"]
subscribe = ["*"]
admin = true
TOML

# A machine, which waits for its network link before it starts its hub.
nodes=()
start() {
  # shellcheck disable=SC2016 # It is for the shell there.
  unshare --net bash -euc '
    echo entered >"machine$0"
    until ip link set "line$0" up 2>/dev/null; do sleep 0.1; done
    ip link set lo up
    ip address add "10.0.0.$0/32" dev "line$0"
    ip route add 10.0.0.100 dev "line$0"
    exec tidings serve --config tidings.toml --listen 0.0.0.0:8080 --store redis://redis.internal' "$1" >"hub$1" 2>&1 &
  nodes[$1]=$!
  wait_for "machine$1" entered
  ip link add "to$1" type veth peer name "line$1" netns "$!"
  ip link set "to$1" up
  ip route add "10.0.0.$1" dev "to$1" src 10.0.0.100
  wait_for "hub$1" ' listening '
}
for number in 1 2 3; do
  : >"machine$number"
  start "$number"
done

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout key.pem -out cert.pem \
  -subj /CN=www.example -addext subjectAltName=DNS:www.example 2>certificate.log
mkdir temporary
{
  echo "user root; daemon off; worker_processes 1; pid $work/pid; events {} http { access_log off;"
  for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $work/temporary/$kind;"; done
  echo "ssl_certificate $work/cert.pem; ssl_certificate_key $work/key.pem;"
  # shellcheck disable=SC2016 # No expansion is meant.
  sed -n '/^```nginx$/,/^```$/{/^```/d;p}' "$document"
  echo '}'
} >nginx.conf
PATH=$PATH:/usr/sbin nginx -e stderr -g 'error_log stderr notice;' -c "$work/nginx.conf" >nginx.log 2>&1 &
wait_for nginx.log 'start worker process [0-9]'

# Publishes, and repeats until it is acknowledged: with a key it is one event, whichever hub it reaches.
publish() {
  local tenths=600
  until curl -sS --fail --cacert cert.pem -H "Authorization: Bearer $KEY" -H "Idempotency-Key: $1" -d "$1" \
    https://www.example/topics/news >>published 2>&1; do
    ((tenths-- > 0)) || { echo "never acknowledged: $1" >&2; tail published >&2; exit 1; }
    sleep 0.1
  done
}
# The node that serves the stream. Without -q, so that curl can write to its end.
node_of_stream() {
  local number
  for number in 1 2 3; do
    if curl -sS --max-time 5 -H "Authorization: Bearer $KEY" "http://10.0.0.$number:8080/metrics" 2>/dev/null | grep '^tidings_subscribers 1$' >/dev/null; then echo "$number"; fi
  done
}

NODE_EXTRA_CA_CERTS=$work/cert.pem node "$client" https://www.example/topics/news >stream 2>client.log &
wait_for stream '"open":true'
publish before
wait_for stream '"data":"before"'

first=$(node_of_stream)
kill -9 "${nodes[$first]}"
publish missed
wait_for stream '"data":"missed"'
second=$(node_of_stream)
test "$first" != "$second"

# A node that is stopped asks its streams to reconnect. The node that was killed runs again.
: >"machine$first"
start "$first"
kill "${nodes[$second]}"
publish after
wait_for stream '"data":"after"'
third=$(node_of_stream)
test "$second" != "$third"

# No event is missing or duplicated, and no gap was reported.
sed -n 's/.*"type":"message".*"data":"\([a-z]*\)".*/\1/p' stream >received
printf '%s\n' before missed after | diff - received
if grep -F '\"kind\":\"gap\"' stream; then exit 1; fi
