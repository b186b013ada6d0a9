// Opens many connections at once, as after a restart, and sends a request on each: node burst.mjs URL COUNT.

import { connect } from 'node:net';

const url = new URL(process.argv[2]);
const count = Number(process.argv[3]);
let connected = 0;
let answered = 0;
for (let i = 0; i < count; i++) {
  let answer = '';
  const socket = connect({ host: url.hostname, port: Number(url.port) });
  socket.on('connect', () => {
    socket.write(`GET ${url.pathname} HTTP/1.1\r\nHost: ${url.host}\r\nConnection: close\r\n\r\n`);
    if (++connected === count) console.log(`connected ${count}`);
  });
  socket.on('data', (bytes) => (answer += bytes));
  socket.on('end', () => {
    if (!answer.startsWith('HTTP/1.1 200 ')) throw new Error(`answered: ${answer}`);
    if (++answered === count) console.log(`answered ${count}`);
  });
}
