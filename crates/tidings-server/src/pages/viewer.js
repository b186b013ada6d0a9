// The live view: streams an address of this hub and shows what comes. Events are data: they only ever become text.
'use strict';

const EVENTS_SHOWN_MAX = 200;
const RECREATE_AFTER_MILLIS = 5000;

const live = document.getElementById('live');
const state = document.getElementById('state');
const list = document.getElementById('events');
const say = document.getElementById('say');

let lastEventId = '';
connect();

function connect() {
  const url = new URL(live.dataset.source || location.href, location.origin);
  url.searchParams.set('format', 'json');
  if (lastEventId) {
    url.searchParams.set('since', `id:${lastEventId}`);
  } else if (!url.searchParams.has('since')) {
    url.searchParams.set('since', '-50');
  }
  const source = new EventSource(url);
  source.onopen = () => tell('live', true);
  source.onmessage = event => {
    lastEventId = event.lastEventId;
    show(JSON.parse(event.data));
  };
  source.addEventListener('tidings', event => {
    lastEventId = event.lastEventId;
    show({ topic: 'tidings', type: 'notice', data: event.data });
  });
  source.onerror = () => {
    tell('disconnected, trying again …', false);
    // Firefox gives up when one attempt is refused, as during a restart.
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(connect, RECREATE_AFTER_MILLIS);
    }
  };
}

function tell(text, open) {
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

say?.addEventListener('submit', async event => {
  event.preventDefault();
  const { topic, data } = say.elements;
  const answer = await fetch(`/topics/${encodeURIComponent(topic.value)}`, { method: 'POST', body: data.value });
  if (answer.ok) {
    data.value = '';
  } else {
    tell((await answer.json()).detail, false);
  }
});
