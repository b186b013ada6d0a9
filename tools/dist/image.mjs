// image.mjs VERSION TARGET BINARY: dist/tidings-VERSION-oci-ARCH.tar, an image in the OCI format, made without a daemon.
//
// It holds the program, the C library and the root certificates of Debian, the user 65532 and nothing else: no shell, no package manager.
// `podman load -i`, `docker load -i` (25 or later) and `skopeo copy oci-archive:…` read it. deploy/Dockerfile builds the same from source.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { lstatSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { tar } from './tar.mjs';

const ARCHITECTURES = { 'x86_64-unknown-linux-gnu': 'amd64', 'aarch64-unknown-linux-gnu': 'arm64' };
/** The user that distroless images call nonroot. */
const USER = 65532;
/** What the program needs of Debian. */
const PACKAGES = ['libc6', 'libgcc-s1', 'ca-certificates'];
/** Character sets and the like, which nothing here reads. */
const UNUSED = /\/gconv\/|\/audit\/|^usr\/share\/(?!doc\/.*copyright$)|^etc\/|^usr\/sbin\//;

const file = (path, content, mode = 0o644) => ({ path, type: 'file', mode, content: Buffer.from(content) });
const directory = (path, mode = 0o755, owner = 0) => ({ path, type: 'directory', mode, owner });

/** The files below a directory as entries of an archive. */
function* entriesBelow(root, prefix = '') {
  for (const name of readdirSync(join(root, prefix)).sort()) {
    const path = join(prefix, name);
    const status = lstatSync(join(root, path));
    if (status.isDirectory()) {
      const below = [...entriesBelow(root, path)];
      if (below.length) yield* [directory(path), ...below];
    } else if (!UNUSED.test(path)) {
      if (status.isSymbolicLink()) yield { path, type: 'link', mode: 0o777, target: readlinkSync(join(root, path)) };
      else yield file(path, readFileSync(join(root, path)), status.mode & 0o755);
    }
  }
}

/** The libraries and certificates of Debian, and what every program expects of a system. */
function systemLayer(work) {
  execFileSync('apt-get', ['download', '-qq', '-o', 'APT::Sandbox::User=root', ...PACKAGES], { cwd: work, stdio: ['ignore', 'ignore', 'inherit'] });
  const root = join(work, 'root');
  for (const name of readdirSync(work).filter((name) => name.endsWith('.deb'))) {
    execFileSync('dpkg-deb', ['--extract', join(work, name), root]);
  }
  // The package concatenates them when it is installed.
  const certificates = join(root, 'usr/share/ca-certificates/mozilla');
  const bundle = readdirSync(certificates).sort().map((name) => readFileSync(join(certificates, name), 'utf8')).join('');
  const entries = [
    ...entriesBelow(root),
    directory('etc'),
    directory('etc/ssl'),
    directory('etc/ssl/certs'),
    file('etc/ssl/certs/ca-certificates.crt', bundle),
    directory('etc/tidings'),
    file('etc/passwd', `root:x:0:0:root:/:/sbin/nologin\ntidings:x:${USER}:${USER}:tidings:/var/lib/tidings:/sbin/nologin\n`),
    file('etc/group', `root:x:0:\ntidings:x:${USER}:\n`),
    file('etc/nsswitch.conf', 'hosts: files dns\n'),
    directory('tmp', 0o1777),
    directory('var'),
    directory('var/lib'),
    directory('var/lib/tidings', 0o750, USER),
  ];
  return tar(entries);
}

function programLayer(binary) {
  const licences = ['LICENSE-APACHE', 'LICENSE-MIT'].map((name) => file(`usr/share/doc/tidings/${name}`, readFileSync(name)));
  const directories = ['usr', 'usr/bin', 'usr/share', 'usr/share/doc', 'usr/share/doc/tidings'].map((path) => directory(path));
  return tar([...directories, file('usr/bin/tidings', readFileSync(binary), 0o755), ...licences]);
}

/** The configuration of containers. `Healthcheck` is of Docker; others ignore it. */
const settings = (version) => ({
  User: `${USER}:${USER}`,
  ExposedPorts: { '8080/tcp': {} },
  Env: ['PATH=/usr/bin', 'TIDINGS_LISTEN=:8080'],
  Entrypoint: ['/usr/bin/tidings'],
  Cmd: ['serve'],
  WorkingDir: '/var/lib/tidings',
  StopSignal: 'SIGTERM',
  Healthcheck: { Test: ['CMD', '/usr/bin/tidings', 'health'], Interval: 10e9, Timeout: 5e9, StartPeriod: 5e9, Retries: 3 },
  Labels: {
    'org.opencontainers.image.title': 'tidings',
    'org.opencontainers.image.description': 'Server push for any web application',
    'org.opencontainers.image.licenses': 'MIT OR Apache-2.0',
    'org.opencontainers.image.version': version,
  },
});

/** The archive of an OCI image layout. */
function layout(version, architecture, layers) {
  const blobs = [];
  const created = execFileSync('git', ['log', '-1', '--format=%cI'], { encoding: 'utf8' }).trim();
  const digest = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  const blob = (kind, bytes) => {
    blobs.push(bytes);
    return { mediaType: `application/vnd.oci.image.${kind}`, digest: digest(bytes), size: bytes.length };
  };
  const json = (value) => Buffer.from(JSON.stringify(value));
  const layerBlobs = layers.map((layer) => blob('layer.v1.tar+gzip', gzipSync(layer, { level: 9 })));
  const config = blob('config.v1+json', json({
    created,
    architecture,
    os: 'linux',
    config: settings(version),
    rootfs: { type: 'layers', diff_ids: layers.map(digest) },
    history: layers.map(() => ({ created, created_by: 'tools/dist/image.mjs' })),
  }));
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = blob('manifest.v1+json', json({ schemaVersion: 2, mediaType, config, layers: layerBlobs }));
  const named = { ...manifest, platform: { architecture, os: 'linux' }, annotations: { 'org.opencontainers.image.ref.name': version } };
  const index = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [named] };
  return tar([
    file('oci-layout', json({ imageLayoutVersion: '1.0.0' })),
    file('index.json', json(index)),
    directory('blobs'),
    directory('blobs/sha256'),
    ...blobs.map((bytes) => file(`blobs/${digest(bytes).replace(':', '/')}`, bytes)),
  ]);
}

const [version, target, binary] = process.argv.slice(2);
const architecture = ARCHITECTURES[target];
if (!architecture) throw new Error(`image.mjs: there is no image for ${target}: add it to ARCHITECTURES`);
const work = mkdtempSync(join(tmpdir(), 'tidings-image-'));
try {
  const image = layout(version, architecture, [systemLayer(work), programLayer(binary)]);
  writeFileSync(`dist/tidings-${version}-oci-${architecture}.tar`, image);
} finally {
  rmSync(work, { recursive: true });
}
