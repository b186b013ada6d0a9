#!/usr/bin/env bash
# A Django application notifies user 42 from Celery, and no other user receives it.
# shellcheck source=SCRIPTDIR/lib.sh
source "$(dirname "$0")/lib.sh"

repository=$PWD
cd "$work" || exit
# The file and the commands that create the secrets are those of the document.
sed -n '/^## Tokens$/,$p' "$repository/docs/auth.md" >section
awk '/^```toml$/ { inside = 1; next } /^```/ { inside = 0 } inside' section >tidings.toml
eval "$(grep -E '^export (KEY|SIGNING_KEY)=' section)"
tidings serve --config tidings.toml >hub 2>&1 &
wait_for hub 'http://127\.0\.0\.1:8080'

token() {
  tidings token new --config tidings.toml --subscribe "$1"
}
listen() {
  local name=$1
  shift
  curl -sS -N "$@" >"$name" &
  wait_for "$name" '^retry: [0-9]+$'
}
listen owner -H "Authorization: Bearer $(token user-42)" http://127.0.0.1:8080/topics/user-42
# A subscriber that names the topic without a grant is refused, and a subscriber of every topic receives public events only.
status() {
  curl -sS -o refused -w '%{http_code}' "$@"
}
test "$(status -H "Authorization: Bearer $(token user-43)" http://127.0.0.1:8080/topics/user-42)" = 403
test "$(status http://127.0.0.1:8080/topics/user-42)" = 401
test "$(status http://127.0.0.1:8080/stream?topic=news\&topic=user-42)" = 401
listen other -H "Authorization: Bearer $(token user-43)" 'http://127.0.0.1:8080/stream?topic=*'
listen nobody 'http://127.0.0.1:8080/stream?topic=*'

curl -sS -d '{"unread":3}' -H "Authorization: Bearer $KEY" http://127.0.0.1:8080/topics/user-42 >reply
wait_for reply '"id":"[^"]+"'
wait_for owner '^data: \{"unread":3\}$'

# A second event, which is public, ends the wait for the private one: every stream has one order.
listen public http://127.0.0.1:8080/topics/news
curl -sS -d 'for all' -H "Authorization: Bearer $KEY" http://127.0.0.1:8080/topics/news >/dev/null
wait_for public '^data: for all$'
wait_for other '^data: for all$'
wait_for nobody '^data: for all$'

# Neither from history, with or without the id that the owner received.
id=$(sed -n 's/^id: //p' owner | head -n 1)
listen history 'http://127.0.0.1:8080/stream?topic=*&since=earliest'
listen stolen -H "Last-Event-ID: $id" 'http://127.0.0.1:8080/stream?topic=*'
wait_for history '^data: for all$'
wait_for stolen '^data: for all$'
if grep -F unread history stolen nobody other; then exit 1; fi

# Publishing requires the key.
test "$(status -d '{"unread":9}' http://127.0.0.1:8080/topics/user-42)" = 401
