// What the client for browsers needs of a hub.

/**
 * Whether this hub has no finite reads (the parameter `until`), with which the client catches up; then the test `t` is skipped, since it
 * can only fail.
 */
export async function lacksUntil(t, hub) {
  const { status, body } = await fetch(hub.url('/topics/probe?until=now'), { headers: { Accept: 'text/event-stream' } });
  await body.cancel();
  if (status === 400) t.skip('this hub does not know `until`');
  return status === 400;
}
