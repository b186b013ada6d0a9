//! The table of actions and of the series that they move, and how one row is proven.

use std::{collections::HashMap, error::Error, net::SocketAddr, pin::Pin, time::Duration};

use tidings_testkit::{Connection, PATIENCE};
use tokio::time::{sleep, timeout};

/// An action, and what it does to metrics. To add one, add it to the table of a module.
pub(crate) struct Case {
    pub(crate) action: &'static str,
    /// Series as in the text format, with their labels, and what is expected of each.
    pub(crate) series: &'static [(&'static str, Change)],
    /// Starts a hub, takes the values [before](Moves::before), acts, and waits for the values
    /// [after](Moves::after).
    pub(crate) run: fn(Moves) -> Run,
}

pub(crate) type Run = Pin<Box<dyn Future<Output = Moved>>>;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// By exactly this.
    By(f64),
    /// By anything, upwards.
    Up,
    /// It has this value afterwards.
    To(f64),
}

/// That all series of a case have moved: only [`Moves::after`] makes it.
pub(crate) struct Moved(());

/// The values of a hub before an action.
pub(crate) struct Moves {
    case: &'static Case,
    /// All scrapes use one connection, so that they do not move what counts connections, unless the
    /// hub needs its capacity.
    scraper: Option<Scraper>,
    before: HashMap<String, f64>,
}

/// Proves all rows of a table, one after the other.
pub(crate) async fn prove(cases: &'static [Case]) {
    for case in cases {
        println!("{}", case.action);
        let Moved(()) = (case.run)(Moves { case, scraper: None, before: HashMap::new() }).await;
    }
}

impl Moves {
    /// Takes the values of the hub at this address.
    pub(crate) async fn before(&mut self, address: SocketAddr) {
        self.before_as(address, "").await;
    }

    /// The same, with these header lines of an operator.
    pub(crate) async fn before_as(&mut self, address: SocketAddr, fields: &str) {
        let connection = Connection::open(address).await.unwrap();
        self.scraper = Some(Scraper { address, request: format!("GET /metrics\n{fields}"), connection });
        self.before = self.values().await;
    }

    /// Waits until every series has changed as expected.
    pub(crate) async fn after(mut self) -> Moved {
        let mut now = HashMap::new();
        let waiting = async {
            loop {
                now = self.values().await;
                if self.missing(&now).is_empty() {
                    return;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = timeout(PATIENCE, waiting).await.is_ok();
        assert!(in_time, "{}: {}", self.case.action, self.missing(&now).join("; "));
        Moved(())
    }

    #[expect(clippy::float_cmp, reason = "what is compared are whole numbers")]
    fn missing(&self, now: &HashMap<String, f64>) -> Vec<String> {
        let mut missing = Vec::new();
        for (series, change) in self.case.series {
            let (before, now) = (self.before.get(*series).copied(), now.get(*series).copied());
            let is_as_expected = match (change, before, now) {
                (Change::By(by), Some(before), Some(now)) => now == before + by,
                (Change::Up, Some(before), Some(now)) => now > before,
                (Change::To(to), _, Some(now)) => now == *to,
                _ => false,
            };
            if !is_as_expected {
                missing.push(format!("{series} was {before:?}, is {now:?}, expected {change:?}"));
            }
        }
        missing
    }

    async fn values(&mut self) -> HashMap<String, f64> {
        let scraper = self.scraper.as_mut().expect("`before` comes first");
        if let Ok(text) = scraper.scrape().await {
            return values(&text);
        }
        scraper.connection = Connection::open(scraper.address).await.unwrap();
        values(&scraper.scrape().await.unwrap())
    }
}

struct Scraper {
    address: SocketAddr,
    request: String,
    connection: Connection,
}

impl Scraper {
    async fn scrape(&mut self) -> Result<String, Box<dyn Error>> {
        self.connection.request(&self.request, b"").await?;
        let response = self.connection.response().await?;
        assert_eq!(response.status, 200, "{response}");
        Ok(response.text())
    }
}

/// All samples of an exposition in the text format, by their series.
pub(crate) fn values(text: &str) -> HashMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            (series.to_owned(), value.parse().expect("a value is a number"))
        })
        .collect()
}
