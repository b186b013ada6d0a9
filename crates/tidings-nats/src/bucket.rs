//! Key-value buckets: streams of which only the last message of each subject counts.

use std::time::Duration;

use async_nats::jetstream::{self, kv::Store, stream::DiscardPolicy};

use crate::link::Link;

/// What a bucket is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket<'a> {
    pub(crate) name: &'a str,
    pub(crate) description: &'a str,
    pub(crate) replicas: usize,
    /// What was not said again for so long is dropped.
    pub(crate) max_age: Option<Duration>,
    /// What does not fit is refused.
    pub(crate) max_bytes: Option<i64>,
}

impl Bucket<'_> {
    /// Opens the bucket, and makes it if it is not there. It is made as a stream, because the client's own way asks for an account in a form that servers before 2.10
    /// do not know.
    pub(crate) async fn open(self, link: &Link) -> Result<Store, String> {
        let asked = async {
            if let Ok(bucket) = link.jetstream().get_key_value(self.name).await {
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
            num_replicas: self.replicas,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..Default::default()
        }
    }
}
