// A tar archive (ustar) of entries that are listed, not read from a directory: their owners and modes are then ours to choose, without
// root, and the same entries give the same bytes.

const BLOCK = 512;
const TYPES = { file: '0', link: '2', directory: '5' };

/** Octal digits and a NUL, as the fields of a header hold numbers. */
const octal = (number, width) => `${number.toString(8).padStart(width - 1, '0')}\0`;

function header({ path, type, mode, owner = 0, target = '', content = Buffer.alloc(0) }) {
  const name = type === 'directory' ? `${path}/` : path;
  for (const text of [name, target]) {
    if (Buffer.byteLength(text) > 100) throw new Error(`tar.mjs: ${text} is longer than the 100 bytes of a header`);
  }
  const block = Buffer.alloc(BLOCK);
  const fields = [
    [0, name],
    [100, octal(mode, 8)],
    [108, octal(owner, 8)],
    [116, octal(owner, 8)],
    [124, octal(content.length, 12)],
    [136, octal(0, 12)],
    [148, ' '.repeat(8)],
    [156, TYPES[type]],
    [157, target],
    [257, 'ustar\x0000'],
  ];
  for (const [offset, text] of fields) block.write(text, offset, 'utf8');
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

/** The archive of entries `{ path, type: 'file' | 'link' | 'directory', mode, owner?, target?, content? }`, in their order. */
export function tar(entries) {
  const blocks = entries.flatMap((entry) => {
    const content = entry.content ?? Buffer.alloc(0);
    const padding = Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK);
    return [header(entry), content, padding];
  });
  return Buffer.concat([...blocks, Buffer.alloc(2 * BLOCK)]);
}
