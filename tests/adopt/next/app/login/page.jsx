import { redirect } from 'next/navigation';
import { logIn } from '../../lib/session';

async function submit(form) {
  'use server';
  await logIn(form.get('user'));
  redirect('/');
}

export default function Login() {
  return (
    <form action={submit}>
      <input name="user" autoFocus required />
      <button>Log in</button>
    </form>
  );
}
