import { publish } from 'tidings';
import Messages from './messages';

async function send(form) {
  'use server';
  await publish('chat', form.get('text'));
}

export default function Page() {
  return (
    <main>
      <Messages />
      <form action={send}>
        <input name="text" required />
        <button>Send</button>
      </form>
    </main>
  );
}
