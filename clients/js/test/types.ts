// The types of the package, as an application in TypeScript uses them: `tsc` compiles this, and nothing runs it.

import { connect } from '@tidings/client';
import type { Hub, Status } from '@tidings/client';
import { plain } from '@tidings/client/plain';
import { useHubState, useStatus, useTopic } from '@tidings/client/react';
import { state } from '@tidings/client/state';
import { validate } from '@tidings/client/validate';

interface Events {
  orders: { order: number };
  chat: string;
}

const hub: Hub<Events> = connect<Events>('https://hub.example.com', {
  ticket: () => fetch('/ticket').then((response) => response.text()),
  tabs: 'shared',
});

const off: () => void = hub.on('orders', ({ order }, { id, topic, time, replayed }) => {
  const paid: number = order;
  console.log(paid, id.length, topic.length, time?.length, replayed === true);
});
hub.on('chat', (text) => console.log(text.length), { since: '-50' });
// @ts-expect-error: the data of this topic is not a text.
hub.on('orders', (text: string) => console.log(text));
hub.on({ pattern: '/users/:id' }, (data) => console.log(typeof data === 'string' ? data.length : data.order));
hub.onGap('orders', ({ id, reason }) => console.log(id satisfies string, reason satisfies 'expired' | 'unknown' | 'other-log'));
const status: Status = hub.status;

const orders = state(hub, 'orders', {
  load: (): Promise<number[]> => fetch('/orders').then((response) => response.json()),
  apply: (list, { order }) => [...list, order],
});
const list: number[] | undefined = orders.get();

const checked = connect('https://hub.example.com', {
  parse: validate({ orders: { '~standard': { validate: (value) => ({ value: value as number }), types: { output: 0 } } } }),
});
checked.on('orders', (order) => console.log(order.toFixed()));

// Without types, data is anything.
connect('/events', { source: plain }).on('price', (data) => console.log(data.any.thing));

export function Component(): string {
  useTopic(hub, 'orders', ({ order }) => console.log(order.toFixed()), { since: '-50' });
  const current: number[] | undefined = useHubState(orders);
  return `${useStatus(hub)} ${current?.length} ${list} ${status} ${off}`;
}
