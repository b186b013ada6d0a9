// Hubs with keys and ticket secrets, and the function of docs/tickets.md that makes tickets.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { read, snippet } from './document.mjs';
import { folder } from './folder.mjs';

export const DOCUMENT = read('docs/tickets.md');
export const KEY = 'tk_a-key-that-may-do-everything';
export const SECRET = 'a secret of tickets that is long enough';

/** Writes a configuration with a key, the ticket secret of the document and further lines; resolves with its path. */
export async function configuration(t, lines = '') {
  const path = join(await folder(t), 'tidings.toml');
  const secret = snippet(DOCUMENT, '**The secret.**', 'toml').replace(/secret_env = "TICKET_SECRET".*/, `secret = "${SECRET}"`);
  const key = `[[key]]\nname = "all"\nsecret = "${KEY}"\npublish = ["*"]\nsubscribe = ["*"]\nadmin = true\n`;
  writeFileSync(path, `private_topics = ["user-*"]\n${lines}\n${key}${secret}`);
  return path;
}

/** The function of the document for Node: `ticket(topics, more)`. */
export async function ticketMaker(t) {
  process.env.TICKET_SECRET = SECRET;
  const path = join(await folder(t), 'ticket.mjs');
  writeFileSync(path, `${snippet(DOCUMENT, '\nNode:\n', 'js')}\nexport { ticket };\n`);
  const { ticket } = await import(pathToFileURL(path));
  return ticket;
}

/** The page of the document that renews its ticket, with this hub. */
export function renewingPage(hub) {
  return snippet(DOCUMENT, 'Renewal is a new EventSource', 'js').replaceAll('http://127.0.0.1:8080', hub).replace('3000', '300');
}

/** The same page with a cookie: the lines of the document take the place of those that begin like them. */
export function renewingPageWithCookie(hub) {
  const lines = snippet(DOCUMENT, 'three lines differ', 'js').replaceAll('http://127.0.0.1:8080', hub).trim().split('\n');
  return lines.reduce((page, line) => {
    const beginning = line.slice(0, line.indexOf(' = ') + 3);
    const [before, ...after] = page.split(beginning);
    if (after.length !== 1) throw new Error(`${JSON.stringify(beginning)} begins ${after.length} lines of the page`);
    return before + line + after[0].slice(after[0].indexOf('\n'));
  }, renewingPage(hub));
}

/** Publishes on a private topic with the key. */
export async function publish(hub, topic, data) {
  const headers = { Authorization: `Bearer ${KEY}` };
  const response = await fetch(hub.url(`/topics/${topic}`), { method: 'POST', headers, body: data });
  if (!response.ok) throw new Error(`publishing was answered ${response.status}: ${await response.text()}`);
}
