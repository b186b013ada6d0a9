//! Key-value buckets: streams in which only the last message of each subject counts.

use std::time::Duration;

use async_nats::jetstream::{self, kv::Store, stream::DiscardPolicy};

use crate::link::Link;

/// The configuration of a bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket<'a> {
    pub(crate) name: &'a str,
    pub(crate) description: &'a str,
    /// How many servers keep it; without a number it is created on one.
    pub(crate) replicas: Option<usize>,
    /// A value that is not renewed for this long is dropped.
    pub(crate) max_age: Option<Duration>,
    /// What does not fit is refused.
    pub(crate) max_bytes: Option<i64>,
}

impl Bucket<'_> {
    /// Opens the bucket, and creates it if it does not exist. It is created as a stream, because
    /// the client's own call requests an account in a form that servers before 2.10 do not know.
    pub(crate) async fn open(self, link: &Link) -> Result<Store, String> {
        let asked = async {
            if let Ok(bucket) = link.jetstream().get_key_value(self.name).await {
                check_replicas(&bucket.stream.cached_info().config, self.replicas)?;
                return Ok(bucket);
            }
            link.jetstream().create_stream(self.stream()).await.map_err(|error| error.to_string())?;
            link.jetstream().get_key_value(self.name).await.map_err(|error| error.to_string())
        };
        link.ask("opening a bucket", asked).await
    }

    fn stream(&self) -> jetstream::stream::Config {
        jetstream::stream::Config {
            name: format!("KV_{}", self.name),
            description: Some(self.description.to_owned()),
            subjects: vec![format!("$KV.{}.>", self.name)],
            max_messages_per_subject: 1,
            max_bytes: self.max_bytes.unwrap_or(-1),
            max_age: self.max_age.unwrap_or(Duration::ZERO),
            discard: DiscardPolicy::New,
            num_replicas: self.replicas.unwrap_or(1),
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..Default::default()
        }
    }
}

/// A bucket or stream that exists keeps its replicas, so it cannot be used if another number is
/// wanted.
pub(crate) fn check_replicas(has: &jetstream::stream::Config, wanted: Option<usize>) -> Result<(), String> {
    let (name, count) = (&has.name, has.num_replicas);
    match wanted.filter(|wanted| *wanted != count) {
        None => Ok(()),
        Some(wanted) => Err(format!(
            "{name} has {count} replica{}, and the address asks for {wanted}: change one of the two",
            if count == 1 { "" } else { "s" }
        )),
    }
}
