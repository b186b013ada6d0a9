//! A shop: customers order, the shop ships. Log in as the name that you enter; "shop" is the shop.

use std::{
    env,
    sync::{Arc, Mutex},
};

use axum::{
    Form, Router,
    extract::{FromRef, FromRequestParts, Path, State},
    http::{StatusCode, request::Parts},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use axum_extra::extract::cookie::{Cookie, Key, SignedCookieJar};
use serde::Deserialize;
use tokio::net::TcpListener;

#[derive(Clone)]
struct App {
    key: Key,
    hub: tidings::Hub,
    users: Arc<Mutex<Vec<String>>>,
    orders: Arc<Mutex<Vec<Order>>>,
}

#[derive(Clone)]
struct Order {
    id: usize,
    user: String,
    item: String,
    state: &'static str,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let app = App {
        // Sessions end with the process.
        key: Key::generate(),
        hub: tidings::Hub::in_memory().await,
        users: Arc::default(),
        orders: Arc::default(),
    };
    let router = Router::new()
        .route("/", get(orders))
        .route("/login", get(login_form).post(login))
        .route("/stream", get(async |user: User, app: State<App>| app.hub.subscribe(user.id).await))
        .route("/orders", post(order))
        .route("/orders/{id}/ship", post(ship));
    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, router.with_state(app)).await?)
}

/// The user who is logged in; without one the response is a redirect to the form.
struct User {
    id: String,
    name: String,
}

impl FromRequestParts<App> for User {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Redirect> {
        let jar = SignedCookieJar::from_headers(&parts.headers, app.key.clone());
        let id = jar.get("user").map(|cookie| cookie.value().to_owned()).unwrap_or_default();
        let number = id.parse().unwrap_or(usize::MAX);
        let name = app.users.lock().expect("no panic").get(number).cloned();
        Ok(Self { id, name: name.ok_or_else(|| Redirect::to("/login"))? })
    }
}

impl FromRef<App> for Key {
    fn from_ref(app: &App) -> Self {
        app.key.clone()
    }
}

#[derive(Deserialize)]
struct Login {
    user: String,
}

async fn login_form() -> Html<&'static str> {
    Html(r#"<form method="post"><input name="user" autofocus required><button>Log in</button></form>"#)
}

async fn login(State(app): State<App>, jar: SignedCookieJar, Form(login): Form<Login>) -> impl IntoResponse {
    let mut users = app.users.lock().expect("no panic");
    let id = users.iter().position(|name| *name == login.user).unwrap_or_else(|| {
        users.push(login.user);
        users.len() - 1
    });
    let cookie = Cookie::build(("user", id.to_string())).http_only(true).path("/");
    (jar.add(cookie), Redirect::to("/"))
}

async fn orders(State(app): State<App>, user: User) -> Html<String> {
    let orders = app.orders.lock().expect("no panic");
    let mine = orders.iter().filter(|order| order.user == user.id).map(Order::html).collect::<String>();
    Html(format!(
        r#"<!doctype html><meta charset="utf-8"><title>Orders</title><h1>Orders of {}</h1>
<ul>{mine}</ul>
<form method="post" action="/orders"><input name="item" required><button>Order</button></form>
<script>new EventSource('/stream').onmessage = () => location.reload()</script>
"#,
        escaped(&user.name)
    ))
}

#[derive(Deserialize)]
struct NewOrder {
    item: String,
}

async fn order(State(app): State<App>, user: User, Form(new): Form<NewOrder>) -> Redirect {
    let mut orders = app.orders.lock().expect("no panic");
    let order = Order { id: orders.len(), user: user.id, item: new.item, state: "ordered" };
    orders.push(order);
    Redirect::to("/")
}

async fn ship(State(app): State<App>, user: User, Path(id): Path<usize>) -> Result<StatusCode, Failure> {
    if user.name != "shop" {
        return Ok(StatusCode::FORBIDDEN);
    }
    let Some(order) = app.shipped(id) else { return Ok(StatusCode::NOT_FOUND) };
    println!("{} was shipped", order.item);
    app.hub.publish(tidings::NewEvent::new(order.user.clone(), order.html())).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl App {
    fn shipped(&self, id: usize) -> Option<Order> {
        let mut orders = self.orders.lock().expect("no panic");
        let order = orders.get_mut(id)?;
        order.state = "shipped";
        Some(order.clone())
    }
}

impl Order {
    fn html(&self) -> String {
        format!(r#"<li id="order-{}">{}: <b>{}</b></li>"#, self.id, escaped(&self.item), self.state)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

struct Failure(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}
