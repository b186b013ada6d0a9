//! Publishes with the crate `mercure`, which makes its tokens itself, and prints what the hub answers:
//! `mercure-crate-publisher HUB KEY DATA TOPIC…`. Private events, because its public ones are the easy case.

use std::{env, error::Error};

use mercure::{Client, HubUrl, PublisherJwt, Topic, TopicSelector, client::PublishUpdatePrivacy};
use url::Url;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let mut next = || args.next().ok_or("usage: mercure-crate-publisher HUB KEY DATA TOPIC…");
    let (hub, key, data, canonical) = (next()?, next()?, next()?, next()?);
    let alternates = args.map(|topic| topic.parse()).collect::<Result<Vec<Url>, _>>()?;

    let token = PublisherJwt::new(&key.into_bytes().into(), vec![TopicSelector::Wildcard])?;
    let client = Client::new(reqwest::Client::new(), HubUrl::try_from(hub.parse::<Url>()?)?, token);
    let topic = Topic::new(canonical.parse()?, alternates);
    let published = client.publish_update(topic, Some(&data), PublishUpdatePrivacy::Private);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", runtime.block_on(published)?);
    Ok(())
}
