#!/usr/bin/env bash
# The archive: unpacked, run, replaced by another version, removed.
set -euo pipefail
# shellcheck source=tests/dist/lib.sh
. /mnt/lib.sh
remember_files
archive=$(echo /dist/tidings-*-linux-gnu.tar.gz)
name=$(basename "$archive" .tar.gz)
step unpack -- tar -xzf "$archive" -C /opt
echo "archive: $(stat -c %s "$archive") bytes, unpacked $(bytes_added) bytes"
for path in LICENSE-MIT LICENSE-APACHE README.md man/tidings.1 man/tidings-serve.1 completions/tidings.bash deploy/systemd/tidings.service tidings.toml; do
  [[ -s /opt/$name/$path ]] || fail "$path is missing in the archive"
done
bash -euc ". /opt/$name/completions/tidings.bash; complete -p tidings" >/dev/null || fail "bash does not read the completions"
step run -- serves "/opt/$name/tidings"
step install -- install "/opt/$name/tidings" /usr/local/bin/tidings
step check -- tidings serve --config "/opt/$name/tidings.toml" --check
# A running hub is upgraded in place: the new program is moved over the old one.
install "/opt/$name/tidings" /usr/local/bin/tidings.new
step upgrade -- mv /usr/local/bin/tidings.new /usr/local/bin/tidings
step run again -- serves tidings
step uninstall -- rm -r "/opt/$name" /usr/local/bin/tidings
[[ -z $(leftovers) ]] || fail "left behind: $(leftovers)"
