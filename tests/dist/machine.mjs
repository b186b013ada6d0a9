// Machines without Rust: a Debian 12 with Python, Node and npm, made once by mmdebstrap. Each script gets a copy of its own, in namespaces
// without a network, that ends with it.

import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
export const DIST = join(REPOSITORY, 'dist');
const DEBIAN = join(REPOSITORY, 'tests/.cache/debian-12');
/** `useradd` is in passwd; the others are what the packages are installed with. */
const PACKAGES = ['passwd', 'python3', 'python3-venv', 'libstdc++6', 'curl'];
const INSTALL_MS = 600_000;
const SCRIPT_MS = 300_000;

/** Why these tests cannot run here, or nothing. */
export function obstacle() {
  if (process.getuid() !== 0) return 'only root can make a machine of its own: run `make dist-test` as root';
  const missing = ['mmdebstrap', 'unshare', 'chroot', 'ip'].filter((command) => spawnSync('sh', ['-c', `command -v ${command}`]).status !== 0);
  return missing.length ? `these commands are needed: ${missing.join(', ')} (apt install mmdebstrap util-linux iproute2)` : undefined;
}

/** The directory of the Debian that all machines are copies of. */
function debian() {
  if (existsSync(DEBIAN)) return DEBIAN;
  const unfinished = `${DEBIAN}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  mkdirSync(dirname(DEBIAN), { recursive: true });
  const args = ['--quiet', '--variant=minbase', '--mode=root', `--include=${PACKAGES.join(',')}`, 'bookworm', unfinished];
  execFileSync('mmdebstrap', args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: INSTALL_MS });
  // Node and npm of this machine, as npm of Debian brings four hundred packages.
  cpSync(process.execPath, join(unfinished, 'usr/bin/node'));
  const modules = execFileSync('npm', ['root', '--global'], { encoding: 'utf8' }).trim();
  cpSync(join(modules, 'npm'), join(unfinished, 'usr/lib/node_modules/npm'), { recursive: true });
  symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(unfinished, 'usr/bin/npm'));
  symlinkSync('../lib/node_modules/npm/bin/npx-cli.js', join(unfinished, 'usr/bin/npx'));
  renameSync(unfinished, DEBIAN);
  return DEBIAN;
}

/** The machine is the Debian below a layer in memory, which ends with the mount namespace. `/dist` and `/old` are read-only. */
const ENTER = `
  ip link set lo up
  mount -t tmpfs tmpfs "$work"
  mkdir "$work"/upper "$work"/work "$work"/root
  mount -t overlay overlay -o "lowerdir=$debian,upperdir=$work/upper,workdir=$work/work" "$work/root"
  mkdir -p "$work/root/dist" "$work/root/old"
  mount --bind -o ro "$dist" "$work/root/dist"
  mount --bind -o ro "$old" "$work/root/old"
  mount --bind -o ro "$scripts" "$work/root/mnt"
  mount -t proc proc "$work/root/proc"
  mount --rbind /dev "$work/root/dev"
  exec chroot "$work/root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root bash "/mnt/$script"
`;

/** Runs a script of this directory on a new machine and returns what it printed. `work` is an empty directory, `old` has old packages. */
export function run(script, work, old) {
  const args = ['--mount', '--pid', '--net', '--fork', '--kill-child', 'sh', '-euc', ENTER];
  const env = { PATH: process.env.PATH, debian: debian(), dist: DIST, old, work, script, scripts: join(REPOSITORY, 'tests/dist') };
  const { status, signal, stdout, stderr } = spawnSync('unshare', args, { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: SCRIPT_MS });
  if (status !== 0) throw new Error(`${script} failed (${signal ?? status}):\n${stdout}\n${stderr}`);
  return stdout;
}
