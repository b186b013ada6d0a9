// Who is logged in: a signed cookie.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { cookies } from 'next/headers';
import { redirect } from 'next/navigation';

const sign = (user) => createHmac('sha256', process.env.SECRET ?? 'change me').update(user).digest('base64url');

export async function logIn(user) {
  const value = `${encodeURIComponent(user)}.${sign(user)}`;
  (await cookies()).set('session', value, { httpOnly: true, sameSite: 'lax' });
}

/** The user of this request; without one the answer is the page to log in. */
export async function currentUser() {
  const [name = '', signature = ''] = (await cookies()).get('session')?.value.split('.') ?? [];
  const user = decodeURIComponent(name);
  const expected = Buffer.from(sign(user));
  const given = Buffer.from(signature);
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) redirect('/login');
  return user;
}
