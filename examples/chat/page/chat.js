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
  const stream = source = new EventSource('/stream?roster&since=' + encodeURIComponent(lastId));
  const on = (type, handle) => stream.addEventListener(type, event => {
    if (stream !== source) return;
    lastId = event.lastEventId || lastId;
    handle(event.data);
  });
  on('message', text => add(line(text)));
  on('roster', names => here.replaceChildren(...JSON.parse(names).map(name => item(span(name)))));
  on('tidings', notice => {
    if (JSON.parse(notice).kind === 'gap') add(item('Messages are missing here: they are no longer kept.', 'gap'));
  });
  show('connecting');
  stream.onopen = () => { if (stream === source) show('connected'); };
  stream.onerror = () => {
    if (stream !== source) return;
    show('reconnecting');
    // A browser that gives up, as Firefox does when a restarting server refuses it once, is started again, at a moment of its own.
    if (stream.readyState === CLOSED) retry = setTimeout(connect, 1000 + 4000 * Math.random());
  };
}

// After a sleep, of the laptop or of a phone's browser, a connection may be dead and not know it. A new one loses nothing.
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

function add(element) {
  out.prepend(element);
  while (out.children.length > LINES_MAX) out.lastChild.remove();
}

function item(content, className = '') {
  const element = document.createElement('li');
  element.className = className;
  element.append(content);
  return element;
}

// Dresses "[time] name: message": the text stays what it is.
function line(text) {
  const [, time, name, message] = /^(\[[\d:]{8}\] )([^:]*)(: .*)$/s.exec(text) || [null, '', '', text];
  const element = item(time, 'line');
  element.append(span(name), message);
  return element;
}

function span(name) {
  const element = document.createElement('b');
  let hue = 0;
  for (const char of name) hue = (hue * 31 + char.codePointAt(0)) % 360;
  element.style.setProperty('--hue', hue);
  element.textContent = name;
  return element;
}

for (const element of [...out.children]) element.replaceWith(line(element.textContent));
connect();
setInterval(wake, 5_000);
for (const type of ['visibilitychange', 'pageshow', 'online']) addEventListener(type, wake);
