'use strict';
// The page works without this file; with it, messages arrive by themselves. All that a stream needs is connect().

const [state, say, box, problem, out, here] =
  ['state', 'say', 'in', 'problem', 'out', 'here'].map(id => document.getElementById(id));
const LINES_MAX = 500;
const CLOSED = 2; // EventSource.CLOSED, which not every polyfill has

let source, lastId = document.body.dataset.since, retry;

function connect() {
  clearTimeout(retry);
  if (source) source.close();
  const stream = source = new EventSource('/stream?presence&since=' + encodeURIComponent(lastId));
  const on = (type, handle) => stream.addEventListener(type, event => {
    if (stream !== source) return;
    lastId = event.lastEventId || lastId;
    handle(event.data);
  });
  on('message', text => add(line(text)));
  on('presence', names => here.replaceChildren(...JSON.parse(names).map(name => element('li', '', dressed(name)))));
  on('tidings', notice => {
    if (JSON.parse(notice).kind === 'gap') add(element('li', 'gap', 'Messages may be missing here: they are no longer kept.'));
  });
  show('connecting');
  stream.onopen = () => { if (stream === source) show('connected'); };
  stream.onerror = () => {
    if (stream !== source) return;
    show('reconnecting');
    // Firefox gives up when a restarting server refuses it once: reconnect after a random delay.
    if (stream.readyState === CLOSED) retry = setTimeout(connect, 1000 + 4000 * Math.random());
  };
}

// After sleep, of a laptop or of a phone's browser, a connection may be dead unnoticed. A new one loses nothing.
let awake = Date.now();
function wake() {
  if (document.hidden) return;
  if (Date.now() - awake > 30_000 || source.readyState === CLOSED) connect();
  awake = Date.now();
}

say.addEventListener('submit', async event => {
  event.preventDefault();
  const message = box.value;
  box.value = problem.textContent = '';
  try {
    const answer = await fetch('/post', { method: 'POST', body: new URLSearchParams({ message }) });
    if (!answer.ok) throw new Error(await answer.text());
  } catch (error) {
    problem.textContent = error instanceof TypeError ? 'The chat cannot be reached.' : error.message;
    box.value ||= message;
  }
});

function show(text) {
  state.textContent = state.className = text;
}

function add(line) {
  out.prepend(line);
  while (out.children.length > LINES_MAX) out.lastChild.remove();
}

// "[time] name: message", in colours. Messages are always inserted as text.
function line(text) {
  const [, time, name, message] = /^(\[[\d:]{8}\] )([^:]*)(: .*)$/s.exec(text) || [null, '', '', text];
  return element('li', '', element('span', 'time', time), dressed(name), message);
}

// The same name has the same colour everywhere.
function dressed(name) {
  const bold = element('b', '', name);
  const hue = [...name].reduce((sum, character) => (sum * 31 + character.codePointAt(0)) % 360, 0);
  bold.style.setProperty('--hue', hue);
  return bold;
}

function element(tag, className, ...content) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...content);
  return made;
}

for (const old of [...out.children]) old.replaceWith(line(old.textContent));
connect();
setInterval(wake, 5_000);
for (const type of ['visibilitychange', 'pageshow', 'online']) addEventListener(type, wake);
