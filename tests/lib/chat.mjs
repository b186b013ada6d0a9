// The chat as a user operates it (crates/tidings-chat).

/** Opens the chat, enters a name, and waits until it is connected. */
export async function join(page, origin, name) {
  await page.goto(`${origin}/`);
  await page.type('input[name=user]', name);
  await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
  await connected(page);
}

/** Waits until the indicator shows that the stream is connected. */
export function connected(page) {
  return page.waitForFunction(() => document.getElementById('state').textContent === 'connected');
}

/** Types a message and sends it. */
export async function say(page, message) {
  await page.type('#in', message);
  await page.keyboard.press('Enter');
}

/** The messages on the page, newest first. */
export function lines(page) {
  return page.$$eval('#out > li', (items) => items.map((item) => item.textContent));
}

/** The messages on the page without the times, oldest first. */
export async function conversation(page) {
  return (await lines(page)).reverse().map((line) => line.replace(/^\[\d\d:\d\d:\d\d\] /, ''));
}

/** Waits until the newest line ends with `text`. */
export async function newestIs(page, text) {
  try {
    await page.waitForFunction((text) => document.querySelector('#out > li')?.textContent.endsWith(text), {}, text);
  } catch (error) {
    throw new Error(`the newest line never ended with ${JSON.stringify(text)}: ${JSON.stringify(await lines(page))}`, {
      cause: error,
    });
  }
}

/** Waits until exactly these users are present. */
export function presentAre(page, ...names) {
  const is = (names) => document.getElementById('here').innerText.split('\n').join() === names;
  return page.waitForFunction(is, {}, names.join());
}

/** Posts without a browser and without a name, like the curl command that the demo prints. */
export async function post(origin, message) {
  const response = await fetch(`${origin}/post`, { method: 'POST', body: new URLSearchParams({ message }) });
  if (response.status !== 204) throw new Error(`/post was answered ${response.status}: ${await response.text()}`);
}
