// The live view: reads a stream of this hub and shows its events. Events are data: they are only inserted as text.
//
// The stream is read with fetch, because an EventSource cannot send a credential. The pasted credential is only kept in a
// variable: it is never stored, and never part of a URL.
'use strict';

const EVENTS_SHOWN_MAX = 200;

const live = document.getElementById('live');
const state = document.getElementById('state');
const list = document.getElementById('events');
const credentialForm = document.getElementById('credential');
const publishForm = document.getElementById('publish');

let credential = '';
let lastEventId = '';
let retryMillis = 3000;
let attempt = new AbortController();

if ('start' in live.dataset) watch();

/** Follows the stream, across reconnects, until it is refused or another one is asked for. */
async function watch() {
  attempt.abort();
  attempt = new AbortController();
  const { signal } = attempt;
  lastEventId = '';
  list.replaceChildren();
  showState('connecting …');
  while (!signal.aborted) {
    try {
      const response = await fetch(address(), { headers: headers({ Accept: 'text/event-stream' }), cache: 'no-store', signal });
      if (response.ok) {
        showState(credential || !credentialForm ? 'live' : 'live, without a credential: public events only', true);
        await read(response.body);
        showState('disconnected, trying again …');
      } else {
        showState(await detailOf(response));
        // A retry can only succeed if the hub is full or unreachable.
        if (response.status < 500 && response.status !== 429) return;
        retryMillis = Math.max(retryMillis, Number(response.headers.get('Retry-After')) * 1000);
      }
    } catch {
      if (signal.aborted) return;
      showState('disconnected, trying again …');
    }
    await new Promise((resolve) => setTimeout(resolve, retryMillis));
  }
}

/** The address of the stream, from where it was last read. An id may have characters that no header can carry. */
function address() {
  const url = new URL(live.dataset.source || location.href, location.origin);
  url.searchParams.set('format', 'json');
  if (lastEventId) {
    url.searchParams.set('since', `id:${lastEventId}`);
  } else if (!url.searchParams.has('since')) {
    url.searchParams.set('since', '-50');
  }
  return url;
}

function headers(fields) {
  return credential ? { ...fields, Authorization: `Bearer ${credential}` } : fields;
}

async function detailOf(response) {
  const problem = await response.json().catch(() => ({}));
  return problem.detail ?? `the hub answered ${response.status}`;
}

/** Reads Server-Sent Events until the stream ends. The hub ends its lines with LF alone. */
async function read(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let fields = {};
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (line) {
        take(line, fields);
      } else {
        dispatch(fields);
        fields = {};
      }
    }
  }
}

function take(line, fields) {
  const [, name, value] = line.match(/^([^:]*):? ?(.*)$/s);
  if (name === 'retry' && /^\d+$/.test(value)) retryMillis = Number(value);
  if (name === 'data' && 'data' in fields) fields.data += `\n${value}`;
  else fields[name] = value;
}

function dispatch({ event, id, data }) {
  if (id !== undefined) lastEventId = id;
  if (data === undefined) return;
  if (event === 'tidings') show({ topic: 'tidings', type: 'notice', data });
  else show(JSON.parse(data));
}

function showState(text, open = false) {
  state.textContent = text;
  state.classList.toggle('open', open);
}

function show(event) {
  const item = document.createElement('li');
  item.classList.toggle('notice', event.type === 'notice');
  const about = element('div', 'about');
  about.append(element('span', 'topic', event.topic));
  if (event.type !== 'message') {
    about.append(element('span', 'type', event.type));
  }
  if (event.time) {
    about.append(element('time', 'time', new Date(event.time).toLocaleTimeString()));
  }
  item.append(about, element('div', 'data', event.data));
  list.prepend(item);
  while (list.children.length > EVENTS_SHOWN_MAX) {
    list.lastElementChild.remove();
  }
}

function element(name, className, text = '') {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

credentialForm?.addEventListener('submit', (event) => {
  event.preventDefault();
  const field = credentialForm.elements.credential;
  if (field) {
    credential = field.value.trim();
    field.value = '';
  }
  watch();
});

publishForm?.addEventListener('submit', async (event) => {
  event.preventDefault();
  const { topic, data } = publishForm.elements;
  try {
    const target = `/topics/${encodeURIComponent(topic.value)}`;
    const response = await fetch(target, { method: 'POST', body: data.value, headers: headers({}) });
    if (response.ok) data.value = '';
    else showState(await detailOf(response), state.classList.contains('open'));
  } catch {
    showState('not published: the hub cannot be reached');
  }
});
