// Tokens of an application that shares a secret with the hub (docs/tokens.md).

import { createHmac, randomUUID } from 'node:crypto';

const SECRET = 'a secret of an issuer that is long enough';
const AUDIENCE = 'https://hub.x.test/.well-known/mercure';

/** The lines of the configuration of a hub that trusts these tokens. */
export const ISSUER = `[[issuer]]\niss = "application"\nsecret = "${SECRET}"\naudience = "${AUDIENCE}"\n`;

/** A token to subscribe to these topics, with further claims: `exp` is required. */
export function token(topics, claims) {
  const details = { type: 'https://mercure.rocks/authorization-detail', actions: ['subscribe'], topics: topics.map((match) => ({ match })) };
  const header = { typ: 'at+jwt', alg: 'HS256' };
  const payload = { iss: 'application', aud: AUDIENCE, jti: randomUUID(), authorization_details: [details], ...claims };
  const message = [header, payload].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${message}.${createHmac('sha256', SECRET).update(message).digest('base64url')}`;
}
