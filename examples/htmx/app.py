"""Orders that appear on every page at once, without JavaScript of our own: with htmx at /, with
Turbo at /turbo."""

import itertools
import os

import flask
import tidings.flask

app = flask.Flask(__name__)
#: Where htmx and Turbo come from.
ASSETS = os.environ.get("ASSETS", "https://unpkg.com")
numbers = itertools.count(1)
orders = []


@app.get("/stream")
def stream():
    return tidings.flask.stream("orders")


@app.get("/stream/turbo")
def stream_turbo():
    return tidings.flask.stream("orders-turbo")


@app.post("/orders")
def create():
    order = {"number": next(numbers), "item": flask.request.form["item"]}
    orders.append(order)
    html = flask.render_template("order.html", order=order)
    tidings.broadcast("orders", html)
    tidings.broadcast("orders-turbo", html, target="orders")
    return "", 204


@app.get("/")
@app.get("/<any(turbo):library>")
def page(library="htmx"):
    return flask.render_template(f"{library}.html", orders=orders, assets=ASSETS)
