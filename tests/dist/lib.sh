#!/usr/bin/env bash
# What the scripts of this directory share. They run on a machine that is theirs alone, so ports are fixed.

# step WORDS -- COMMAND...: runs the command and prints how long it took.
step() {
  local name='' begin milliseconds
  while [[ $1 != -- ]]; do name+=" $1"; shift; done
  shift
  begin=$(date +%s%N)
  ("$@") >/tmp/step.log 2>&1 || { cat /tmp/step.log; echo "FAILED:$name"; exit 1; }
  milliseconds=$((($(date +%s%N) - begin) / 1000000))
  printf '%s: %d.%03d seconds\n' "${name# }" $((milliseconds / 1000)) $((milliseconds % 1000))
}

# fail WORDS: ends the script.
fail() { echo "FAILED: $*"; exit 1; }

# leftovers: the files that this machine has and had not when remember_files was called, except for caches and logs of installers.
remember_files() { list_files >/tmp/files-before; }
leftovers() { list_files | comm -13 /tmp/files-before - | grep -Ev '^/(root/\.npm|root/\.cache|var/cache|var/log|var/lib/dpkg)(/|$)' || true; }
list_files() { find / -xdev -path /proc -prune -o -path /dev -prune -o -path /dist -prune -o -path /old -prune -o -path /mnt -prune -o -path /tmp -prune -o -print | sort; }

# bytes_added: the size of the files that were added since remember_files.
bytes_added() { leftovers | tr '\n' '\0' | xargs -0 -r stat --format '%F %s' | awk '/^regular/ { sum += $NF } END { print sum + 0 }'; }

# serves TIDINGS: starts a hub with this program, publishes, receives, and stops it.
serves() {
  local tidings=$1 hub
  mkfifo /tmp/log
  "$tidings" serve --listen 127.0.0.1:8080 2>/tmp/log &
  hub=$!
  grep -q -m 1 listening /tmp/log || fail "the hub did not start"
  "$tidings" publish --url http://127.0.0.1:8080 chat 'hello from a package' >/dev/null
  # curl ends when the hub does.
  grep -q -m 1 'data: hello from a package' < <(curl -fsN --max-time 20 'http://127.0.0.1:8080/stream?topic=chat&since=earliest') ||
    fail "the event did not arrive"
  kill -TERM "$hub"
  wait "$hub" || fail "the hub ended with $?"
  rm /tmp/log
}
