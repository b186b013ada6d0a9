import { revalidatePath } from 'next/cache';
import { orders } from '../lib/orders';
import { currentUser } from '../lib/session';

async function order(form) {
  'use server';
  const user = await currentUser();
  orders.push({ id: orders.length, user, item: form.get('item'), state: 'ordered' });
  revalidatePath('/');
}

export default async function Orders() {
  const user = await currentUser();
  const mine = orders.filter((order) => order.user === user);
  return (
    <main>
      <h1>Orders of {user}</h1>
      <ul>
        {mine.map(({ id, item, state }) => (
          <li key={id}>
            {item}: <b>{state}</b>
          </li>
        ))}
      </ul>
      <form action={order}>
        <input name="item" required />
        <button>Order</button>
      </form>
    </main>
  );
}
