#!/usr/bin/env bash
# The npm packages: installed without a registry, run, upgraded, uninstalled. Platform packages that were not built are optional.
set -euo pipefail
# shellcheck source=tests/dist/lib.sh
. /mnt/lib.sh
mkdir /opt/app
cd /opt/app
export npm_config_offline=true npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
echo '{ "name": "app", "version": "1.0.0", "type": "module", "private": true }' >package.json
remember_files
library=$(echo /dist/tidings-[0-9]*.tgz) platform=$(echo /dist/tidings-linux-x64-[0-9]*.tgz)
installed() { node -p 'JSON.parse(require("node:fs").readFileSync("node_modules/tidings/package.json")).version'; }

step install -- npm install "$library" "$platform"
echo "npm: $(stat -c %s "$library") + $(stat -c %s "$platform") bytes, installed $(bytes_added) bytes"
new=$(installed)
[[ $(npx --no-install tidings --version) == "tidings $new" ]] || fail "the program is not of version $new"
step import -- node --input-type=module --eval 'await import("tidings")'
step run -- serves node_modules/.bin/tidings
step uninstall -- npm uninstall tidings @tidings/linux-x64
# npm itself leaves empty directories and its lists.
rm -f package-lock.json node_modules/.package-lock.json
find node_modules -type d -empty -delete
[[ -z $(leftovers) ]] || fail "left behind: $(leftovers)"

step install the old version -- npm install /old/tidings-[0-9]*.tgz /old/tidings-linux-x64-[0-9]*.tgz
[[ $(installed) == 0.0.1 ]] || fail "the old version is $(installed)"
step upgrade -- npm install "$library" "$platform"
[[ $(installed) == "$new" ]] || fail "the new version is $(installed)"
step run again -- serves node_modules/.bin/tidings
