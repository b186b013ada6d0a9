// Private notifications: each user receives what is sent to them, on every page that they have open.

import express from 'express';
import session from 'express-session';
import { publish, revoke } from 'tidings';
import { stream } from 'tidings/express';

const app = express();
app.use(express.urlencoded(), session({ secret: process.env.SECRET ?? 'change me', resave: false, saveUninitialized: false }));
const isLoggedIn = ({ session }, res, next) => (session.user ? next() : res.redirect('/login'));

app.get('/login', (req, res) => void res.send('<form method="post"><input name="user" required autofocus><button>Log in</button></form>'));
app.post('/login', (req, res) => {
  req.session.user = req.body.user;
  res.redirect('/');
});
app.post('/logout', isLoggedIn, async (req, res) => {
  const label = req.session.user;
  req.session.destroy();
  await revoke({ label }); // ends the streams of this user
  res.redirect('/login');
});

app.get('/stream', isLoggedIn, (req, res) => stream(req, res, `user-${req.session.user}`, { label: req.session.user, since: '-10' }));
app.post('/notify', isLoggedIn, async (req, res) => {
  await publish(`user-${req.body.to}`, { from: req.session.user, text: req.body.text }, { private: true });
  res.sendStatus(204);
});
app.get('/', isLoggedIn, (req, res) => {
  res.send(`<!doctype html><meta charset="utf-8"><title>Notifications</title><ul id="list"></ul>
<form method="post" action="/notify"><input name="to" placeholder="to"><input name="text"><button>Send</button></form>
<script>
  new EventSource('/stream').onmessage = ({ data }) => {
    const { from, text } = JSON.parse(data);
    document.getElementById('list').append(Object.assign(document.createElement('li'), { textContent: from + ': ' + text }));
  };
</script>`);
});
app.listen(process.env.PORT ?? 3000, '127.0.0.1', (error) => console.log(error ?? 'ready'));
