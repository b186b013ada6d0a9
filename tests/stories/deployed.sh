#!/usr/bin/env bash
# Two hubs behind a proxy with a file of deploy/, as docs/deploy/proxies.md says. PROXY is nginx, nginx-tls, haproxy or caddy. The file is
# used as it is, but for the place of the certificate; Caddy issues its own instead of asking for one.
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "$0")/lib.sh"

deploy=$PWD/deploy
document=$PWD/docs/deploy/proxies.md
client=$PWD/tests/clients/node/eventsource.mjs
PATH=$PATH:/usr/sbin
cd "$work" || exit
echo '127.0.0.1 hub.example.com' >hosts
cat /etc/hosts >>hosts
mount --bind hosts /etc/hosts
mount -t tmpfs tmpfs /var/log
mkdir /var/log/nginx

redis-server --bind 127.0.0.1 --save '' --dir "$work" >redis 2>&1 &
wait_for redis 'Ready to accept connections'
tidings key new --name app >made
KEY=$(head -n 1 made)
export KEY
# shellcheck disable=SC2016 # No expansion is meant.
sed -n '/^```toml$/,/^```$/{/^```/d;p}' "$document" >hub.toml
echo 'admin = true' >>hub.toml
# A token that the hubs refuse is as secret: it may be good elsewhere.
tidings key new --name signing | head -n 1 >issuer.key
tidings token new --subscribe news --issuer app --audience "$(sed -n 's/^public_url = "\(.*\)"/\1/p' hub.toml)" --secret-file issuer.key >signed.jwt
tidings ticket secret >made-secret
sed -n '/^\[\[ticket_secret\]\]/,$p' made-secret >>hub.toml
ticket() { tidings ticket new --config hub.toml --topic "$1"; }
stream_ticket=$(ticket news)
rejected_ticket=$(ticket other)
wrong_key=$(tidings key new --name wrong | head -n 1)
token=$(cat signed.jwt)
planted=("$KEY" "$wrong_key" "$stream_ticket" "$rejected_ticket" "$token" "$(head -n 1 made-secret)" "$(cat issuer.key)")
# shellcheck disable=SC2016 # No expansion is meant.
sed -n '/^```sh$/,/^```$/{/^```/d;s/ &$//;p}' "$document" >commands

hubs=()
# start 0 or 1: the hub of this line of the document.
start() {
  local command
  command=$(sed -n "$(($1 + 1))p" commands)
  # shellcheck disable=SC2086 # These are words.
  : >"hub$1"
  $command >>"hub$1" 2>&1 &
  hubs[$1]=$!
  wait_for "hub$1" ' listening '
}
start 0
start 1

: >proxy
: >stream
origin=http://hub.example.com
authority=/dev/null
case $PROXY in
  nginx*)
    sed "s,/etc/letsencrypt/live/hub.example.com,$work," "$deploy/nginx/${PROXY/nginx/tidings}.conf" >site.conf
    if [[ $PROXY == nginx-tls ]]; then
      origin=https://hub.example.com authority=$work/fullchain.pem
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout privkey.pem -out fullchain.pem \
        -subj /CN=hub.example.com -addext subjectAltName=DNS:hub.example.com 2>certificate.log
    fi
    mkdir temporary
    {
      echo "user root; daemon off; worker_processes 1; pid $work/pid; events {} http {"
      for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $work/temporary/$kind;"; done
      echo "include $work/site.conf; }"
    } >nginx.conf
    nginx -e stderr -g 'error_log stderr notice;' -c "$work/nginx.conf" >>proxy 2>&1 &
    wait_for proxy 'start worker process [0-9]'
    ;;
  haproxy)
    haproxy -W -db -f "$deploy/haproxy/haproxy.cfg" >>proxy 2>&1 &
    wait_for proxy 'Loading success'
    ;;
  caddy)
    origin=https://hub.example.com authority=$work/caddy/pki/authorities/local/root.crt
    { printf '{\n\tlocal_certs\n\tskip_install_trust\n}\n'; cat "$deploy/caddy/Caddyfile"; } >Caddyfile
    HOME=$work XDG_DATA_HOME=$work XDG_CONFIG_HOME=$work caddy run --config Caddyfile --adapter caddyfile >>proxy 2>&1 &
    wait_for proxy 'certificate obtained successfully'
    ;;
esac

ask() { curl -sS --cacert "$authority" --max-time 20 "$@"; }
# Publishes, and repeats until it is acknowledged: with a key it is one event, whichever hub it reaches.
publish() {
  local tenths=300
  until ask --fail -H "Authorization: Bearer $KEY" -H "Idempotency-Key: $1" -d "$1" "$origin/topics/news" >>published 2>&1; do
    ((tenths-- > 0)) || { echo "never acknowledged: $1" >&2; tail published >&2; exit 1; }
    sleep 0.1
  done
}
# How many streams a hub serves; nothing if it does not answer.
subscribers() {
  curl -sS --max-time 5 -H "Authorization: Bearer $KEY" -H 'Accept: application/json' "http://127.0.0.1:808$1/topics/news" 2>/dev/null |
    sed -n 's/.*"subscribers":\([0-9]*\).*/\1/p'
}
# The hub that serves the stream, once other streams that have ended are closed everywhere.
hub_of_stream() {
  local tenths=300
  while ((tenths-- > 0)); do
    case "$(subscribers 0) $(subscribers 1)" in
      '1 0') echo 0; return ;;
      '0 1') echo 1; return ;;
    esac
    sleep 0.1
  done
  echo "the stream is at neither hub, or at both" >&2
  exit 1
}

NODE_EXTRA_CA_CERTS=$authority node "$client" "$origin/stream?topic=news&ticket=$stream_ticket" >>stream 2>client.log &
wait_for stream '"open":true'
# The stream stays open, so what arrives was not held back until its end.
publish at-once
wait_for stream '"data":"at-once"'

# Requests with credentials in each place where a client may put one: accepted, refused by the hubs, refused by the proxy itself, and
# one of a client that leaves at once.
present() { ask "$@" >>credentials 2>&1 & presented+=($!); }
present_credentials() {
  local address presented=()
  for address in "$origin" http://hub.example.com; do
    present -H "Authorization: Bearer $wrong_key" -d refused "$address/topics/news"
    present -H "Authorization: Bearer $token" "$address/topics/news"
    present -H "Cookie: __Secure-mercure_access_token=$token" -H "Referer: $origin/?ticket=$rejected_ticket" "$address/stream?topic=news"
    present "$address/stream?topic=news&ticket=$rejected_ticket"
    present "$address/stream?topic=news&ticket=x$rejected_ticket"
    present "$address/stream?topic=news&access_token=$token"
    present "$address/topics/news?authorization=$KEY" -d refused
    present -X BREW "$address/stream?topic=news&ticket=$rejected_ticket"
    present --http1.1 --request-target "/stream?ticket=$rejected_ticket HTTP/9" "$address/"
    present --http1.1 -H "Padding: $padding" "$address/stream?topic=news&ticket=$rejected_ticket"
    present --http1.1 -H 'Content-Length: 1x' "$address/stream?topic=news&ticket=$rejected_ticket"
    present --max-time 0.3 "$address/stream?topic=news&ticket=$stream_ticket"
  done
  wait "${presented[@]}" || true
}
padding=$(printf '%0100000d' 0)
present_credentials

killed=$(hub_of_stream)
kill -9 "${hubs[$killed]}"
publish missed
wait_for stream '"data":"missed"'
start "$killed"

# A rolling restart: one hub after the other is stopped, and started again.
for number in 0 1; do
  kill "${hubs[$number]}"
  wait "${hubs[$number]}"
  publish "without-$number"
  wait_for stream "\"data\":\"without-$number\""
  start "$number"
done

# No event is missing or duplicated, and no gap was reported.
sed -n 's/.*"type":"message".*"data":"\([a-z0-9-]*\)".*/\1/p' stream >received
printf '%s\n' at-once missed without-0 without-1 | diff - received
if grep -F '\"kind\":\"gap\"' stream; then exit 1; fi

for number in 0 1; do curl -sS --fail -H "Authorization: Bearer $KEY" "http://127.0.0.1:808$number/metrics" >>metrics; done

# Without a hub, a browser is asked to come back, and everybody else is refused.
kill -9 "${hubs[@]}"
for ((tenths = 300; tenths > 0; tenths--)); do
  ask -H 'Accept: text/event-stream' "$origin/stream?topic=news" >away 2>&1 || true
  if [[ $(cat away) == 'retry: 15000' ]]; then break; fi
  sleep 0.1
done
grep -q '^retry: 15000$' away
[[ $(ask -o /dev/null -w '%{http_code}' -d lost "$origin/topics/news") == 50? ]]
present_credentials

# No log has a query, where tickets are, or a credential from anywhere else.
logs=(proxy hub0 hub1 metrics /var/log/nginx)
if grep -rF 'topic=news' "${logs[@]}"; then exit 1; fi
for secret in "${planted[@]}"; do
  if grep -rF -e "$secret" "${logs[@]}"; then exit 1; fi
done
