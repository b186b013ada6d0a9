#!/usr/bin/env bash
# The Debian package: installed, configured, run as its user, upgraded, removed and purged.
set -euo pipefail
# shellcheck source=tests/dist/lib.sh
. /mnt/lib.sh
remember_files
deb=$(echo /dist/tidings_*.deb)
installed() { dpkg-query --show --showformat '${Version}' tidings; }

step install -- dpkg --install "$deb"
echo "deb: $(stat -c %s "$deb") bytes, installed $(bytes_added) bytes"
new=$(installed)
[[ $(getent passwd tidings) == *:/var/lib/tidings:/usr/sbin/nologin ]] || fail "there is no user tidings"
[[ $(stat -c '%U %G %a' /etc/tidings/tidings.toml) == 'root tidings 640' ]] || fail "others may read the configuration"
! pgrep -x tidings >/dev/null 2>&1 || fail "the hub runs before it is configured"
# An installation that nobody configured is a hub for this machine alone.
step check -- tidings serve --check
step run -- serves tidings

# As the unit runs it: the user of the package, and the file that the hub finds by itself.
printf 'heartbeat_secs = 7\nstore = "/var/lib/tidings/events"\n' >/etc/tidings/tidings.toml
install -d -o tidings -g tidings -m 750 /var/lib/tidings
cat >/tmp/as-user <<'END'
#!/bin/sh
exec chroot --userspec=tidings:tidings / /usr/bin/tidings "$@"
END
chmod 755 /tmp/as-user
step run as its user -- serves /tmp/as-user
/tmp/as-user serve --check | grep -q '^heartbeat_secs = 7  # file' || fail "/etc/tidings/tidings.toml is not read"
refusal=$(chroot --userspec=65534:65534 / tidings serve --check 2>&1 || true)
[[ $refusal == *'cannot read /etc/tidings/tidings.toml'* ]] || fail "others get another configuration: $refusal"

# An upgrade keeps what the administrator wrote, and its permissions.
step install the old version -- dpkg --install --force-downgrade --force-confold /old/tidings_*.deb
[[ $(installed) == 0.0.1-1 ]] || fail "the old version is $(installed)"
step upgrade -- dpkg --install --force-confold "$deb"
[[ $(installed) == "$new" ]] || fail "the new version is $(installed)"
grep -q 'heartbeat_secs = 7' /etc/tidings/tidings.toml || fail "the configuration was overwritten"
[[ $(stat -c '%U %G %a' /etc/tidings/tidings.toml) == 'root tidings 640' ]] || fail "the upgrade opened the configuration"
step run again -- serves /tmp/as-user

step remove -- dpkg --remove tidings
! command -v tidings >/dev/null || fail "the program is still there"
[[ -s /etc/tidings/tidings.toml && -d /var/lib/tidings/events ]] || fail "removing deleted the configuration or the events"
step purge -- dpkg --purge tidings
remaining=$(leftovers | grep -Ev '^/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$' || true)
[[ -z $remaining ]] || fail "left behind: $remaining"
