# Sourced by the stories: a folder for their files, and waiting with a limit.
# shellcheck shell=bash
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# wait_for FILE PATTERN [SECONDS]: until a line of the file matches the extended regular expression.
wait_for() {
  local tenths=$((${3:-60} * 10))
  until grep -Eq -- "$2" "$1"; do
    if ((tenths-- == 0)); then
      echo "not found in $1: $2" >&2
      tail -n 50 "$work"/* >&2
      exit 1
    fi
    sleep 0.1
  done
}
