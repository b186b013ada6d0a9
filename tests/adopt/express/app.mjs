// A shop: customers order, the shop ships. Log in as the name that you enter; "shop" is the shop.

import express from 'express';
import session from 'express-session';

const orders = [];
const app = express();
app.use(express.urlencoded());
app.use(session({ secret: process.env.SECRET ?? 'change me', resave: false, saveUninitialized: false }));

const page = (title, body) => `<!doctype html><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}`;
const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
const isLoggedIn = (req, res, next) => (req.session.user ? next() : res.redirect('/login'));
const isShop = (req, res, next) => (req.session.user === 'shop' ? next() : res.sendStatus(403));

app.get('/login', (req, res) => {
  res.send(page('Log in', '<form method="post"><input name="user" autofocus required><button>Log in</button></form>'));
});

app.post('/login', (req, res, next) => {
  req.session.regenerate((error) => {
    if (error) return next(error);
    req.session.user = req.body.user;
    res.redirect('/');
  });
});

app.get('/', isLoggedIn, (req, res) => {
  const mine = orders.filter(({ user }) => user === req.session.user);
  const items = mine.map(({ id, item, state }) => `<li id="order-${id}">${escape(item)}: <b>${state}</b></li>`);
  res.send(page(`Orders of ${escape(req.session.user)}`, `
    <ul>${items.join('')}</ul>
    <form method="post" action="/orders"><input name="item" required><button>Order</button></form>
  `));
});

app.post('/orders', isLoggedIn, (req, res) => {
  orders.push({ id: orders.length, user: req.session.user, item: req.body.item, state: 'ordered' });
  res.redirect('/');
});

app.post('/orders/:id/ship', isLoggedIn, isShop, (req, res) => {
  const order = orders[req.params.id];
  if (!order) return res.sendStatus(404);
  order.state = 'shipped';
  res.sendStatus(204);
});

const server = app.listen(process.env.PORT ?? 3000, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
