#!/usr/bin/env bash
# The wheel: installed without a network, run, upgraded, uninstalled.
set -euo pipefail
# shellcheck source=tests/dist/lib.sh
. /mnt/lib.sh
python3 -m venv /opt/venv
remember_files
wheel=$(echo /dist/tidings-*.whl)
installed() { /opt/venv/bin/python -c 'from importlib.metadata import version; print(version("tidings"))'; }

step install -- /opt/venv/bin/pip install --no-index "$wheel"
echo "wheel: $(stat -c %s "$wheel") bytes, installed $(bytes_added) bytes"
new=$(installed)
[[ $(/opt/venv/bin/tidings --version) == "tidings $new" ]] || fail "the program is not of version $new"
step import -- /opt/venv/bin/python -c 'import tidings'
step run -- serves /opt/venv/bin/tidings
step uninstall -- /opt/venv/bin/pip uninstall --yes tidings
[[ -z $(leftovers) ]] || fail "left behind: $(leftovers)"

step install the old version -- /opt/venv/bin/pip install --no-index /old/tidings-*.whl
[[ $(installed) == 0.0.1 ]] || fail "the old version is $(installed)"
step upgrade -- /opt/venv/bin/pip install --no-index "$wheel"
[[ $(installed) == "$new" ]] || fail "the new version is $(installed)"
step run again -- serves /opt/venv/bin/tidings
