// Raw bytes to a server, and what it answers until it closes the connection.

import { once } from 'node:events';
import net from 'node:net';

/**
 * Sends these bytes and resolves with everything that the server sends until it closes the connection, as text of single bytes.
 * The client closes it only if a stream begins: everything else ends by the time-outs of the server.
 */
export async function exchange(port, bytes) {
  const socket = net.connect(port, '127.0.0.1');
  const received = [];
  socket.on('data', (data) => {
    received.push(data);
    if (data.includes('text/event-stream')) socket.destroy();
  });
  // The server may refuse before everything is sent, and reset what comes then.
  socket.on('error', () => {});
  socket.write(Buffer.from(bytes, 'latin1'));
  await once(socket, 'close');
  return Buffer.concat(received).toString('latin1');
}
