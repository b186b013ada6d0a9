//! Reads a complete request body, within a size limit, a time limit and a memory budget for all
//! bodies, of which one address may take a part. Responses that clients read as slowly as they like
//! have such a budget, too.

use std::{
    collections::HashMap,
    ops::Deref,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::client_address::{ClientAddress, Neighbourhood};

/// The bodies of one address may take this part of the memory for all of them, loopback excepted,
/// but always as much as one body may have.
const ADDRESS_PART: usize = 4;

/// Why a body could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It is larger than the limit: 413. What was read of it is forgotten.
    #[error("the body is too large")]
    TooLarge,
    /// It did not arrive whole in time: 408.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// It ended early, or its chunks are malformed: 400.
    #[error("the body ended early or its chunks are malformed")]
    Broken,
    /// The bodies that are arriving take all the memory that they may: 503. What was read of it is
    /// forgotten.
    #[error(
        "request bodies that are arriving use all of the memory reserved for them; try again in a moment"
    )]
    NoMemory,
    /// Those of this address take all the memory that one address may: 429. What was read of it is
    /// forgotten.
    #[error(
        "request bodies of your address that are arriving use all of the memory that one address may; try again in a moment"
    )]
    NoMemoryForAddress,
}

/// Reads a body of at most `limit_bytes`, all of it within `body_secs`: a client that sends a byte
/// now and then gains nothing.
pub async fn read_body<B>(body: B, limit_bytes: usize, body_secs: u64) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
{
    let body = BodyBudget::new(usize::MAX).read(body, None, limit_bytes, body_secs).await?;
    Ok(body.bytes)
}

/// The memory that request bodies may take while they arrive, or responses until they are read, on
/// all connections together.
///
/// A request body that is here as soon as its handler looks for it costs none of it: a client that
/// is done takes nothing from the others.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget(Arc<Memory>);

#[derive(Default, Debug)]
struct Memory {
    bytes_max: usize,
    is_for_responses: bool,
    taken: AtomicUsize,
    /// What each address has taken; only those that have something are in it.
    by_address: Mutex<HashMap<Neighbourhood, usize>>,
}

/// A body that was read. What it takes of the budget is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct ReadBody {
    bytes: Bytes,
    _share: Share,
}

impl Deref for ReadBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for ReadBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl BodyBudget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Memory { bytes_max, ..Memory::default() }))
    }

    /// One of responses that clients read as slowly as they like: each costs its share until it is
    /// dropped, also if it is here at once.
    pub(crate) fn of_responses(bytes_max: usize) -> Self {
        Self(Arc::new(Memory { bytes_max, is_for_responses: true, ..Memory::default() }))
    }

    /// What a client reads as slowly as it likes: it costs its share until it is dropped. More than
    /// the whole budget is admitted where nothing else is there, so that no response is impossible.
    pub(crate) fn hold(&self, bytes: Bytes, client: Option<ClientAddress>) -> Result<Bytes, BodyError> {
        let mut share = self.share(client, bytes.len());
        share.grow_to(bytes.len().min(self.0.bytes_max))?;
        Ok(Bytes::from_owner(ReadBody { bytes, _share: share }))
    }

    /// A share of nothing yet. `bytes` always fit into the part of one address.
    fn share(&self, client: Option<ClientAddress>, bytes: usize) -> Share {
        Share {
            memory: Arc::clone(&self.0),
            address: client.filter(|client| !client.is_local()).map(Neighbourhood::from),
            address_bytes_max: (self.0.bytes_max / ADDRESS_PART).max(bytes),
            bytes: 0,
        }
    }

    /// The same as [`read_body`], within this budget and within the part of it that the client's
    /// address may take, if the body comes from a client or is for one.
    pub(crate) async fn read<B>(
        &self,
        body: B,
        client: Option<ClientAddress>,
        limit_bytes: usize,
        body_secs: u64,
    ) -> Result<ReadBody, BodyError>
    where
        B: Body<Data = Bytes>,
    {
        // A declared length tells before the first byte, and before `100 Continue` invites the
        // client to send it.
        let hint = body.size_hint();
        if hint.lower() > limit_bytes as u64 {
            return Err(BodyError::TooLarge);
        }
        let declared = hint.upper().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(limit_bytes);
        let mut arriving = Arriving {
            first: Bytes::new(),
            all: Vec::new(),
            bytes_max: limit_bytes,
            bytes_expected_max: declared.min(limit_bytes),
            share: self.share(client, limit_bytes),
            is_counted: self.0.is_for_responses,
        };
        let mut body = pin!(body);
        // Nearly every body is here already, and needs neither a clock nor a share.
        let at_once = arriving.collect(body.as_mut()).now_or_never();
        if let Some(done) = at_once {
            done?;
        } else {
            arriving.count()?;
            // Boxed: otherwise each request would have memory for it, and few need it.
            let rest = Box::pin(timeout(Duration::from_secs(body_secs), arriving.collect(body)));
            rest.await.unwrap_or(Err(BodyError::TimedOut))?;
        }
        let Arriving { first, all, share, .. } = arriving;
        Ok(ReadBody { bytes: if all.is_empty() { first } else { all.into() }, _share: share })
    }
}

/// A body, as far as it has come.
struct Arriving {
    /// Nearly every body is one frame, and is then not copied.
    first: Bytes,
    all: Vec<u8>,
    bytes_max: usize,
    /// What it will have at most, as far as is known.
    bytes_expected_max: usize,
    share: Share,
    is_counted: bool,
}

impl Arriving {
    /// May be dropped and called again: nothing is lost.
    async fn collect<B>(&mut self, mut body: Pin<&mut B>) -> Result<(), BodyError>
    where
        B: Body<Data = Bytes>,
    {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            self.push(data)?;
        }
        Ok(())
    }

    fn push(&mut self, data: Bytes) -> Result<(), BodyError> {
        let length = self.first.len() + self.all.len() + data.len();
        if length > self.bytes_max {
            return Err(BodyError::TooLarge);
        }
        if self.first.is_empty() && self.all.is_empty() {
            self.first = data;
            return self.take(length);
        }
        if length > self.all.capacity() {
            // Twice as much, so that a body is copied a few times only, but no more than it can
            // come to.
            let capacity = (2 * length).min(self.bytes_expected_max).max(length);
            self.take(capacity)?;
            self.all.reserve_exact(capacity - self.all.len());
        }
        self.all.extend_from_slice(&std::mem::take(&mut self.first));
        self.all.extend_from_slice(&data);
        Ok(())
    }

    /// From now on this body takes its share.
    fn count(&mut self) -> Result<(), BodyError> {
        self.is_counted = true;
        self.take(self.first.len() + self.all.capacity())
    }

    fn take(&mut self, bytes: usize) -> Result<(), BodyError> {
        if self.is_counted { self.share.grow_to(bytes) } else { Ok(()) }
    }
}

/// What one body takes of the budget, given back when it is dropped.
#[derive(Debug)]
struct Share {
    memory: Arc<Memory>,
    /// The address that it counts for.
    address: Option<Neighbourhood>,
    address_bytes_max: usize,
    bytes: usize,
}

impl Share {
    fn grow_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        let more = bytes.saturating_sub(self.bytes);
        let Memory { bytes_max, taken, .. } = &*self.memory;
        let grown = |taken: usize, max: usize| taken.checked_add(more).filter(|taken| *taken <= max);
        let take = || taken.fetch_update(Relaxed, Relaxed, |taken| grown(taken, *bytes_max));
        match self.address {
            None => take().map_err(|_| BodyError::NoMemory)?,
            Some(address) => {
                let mut by_address = self.memory.by_address();
                let before = by_address.get(&address).copied().unwrap_or(0);
                let after = grown(before, self.address_bytes_max).ok_or(BodyError::NoMemoryForAddress)?;
                let taken = take().map_err(|_| BodyError::NoMemory)?;
                by_address.insert(address, after);
                taken
            }
        };
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.taken.fetch_sub(self.bytes, Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.memory.by_address();
        let Some(taken) = by_address.get_mut(&address) else { return };
        *taken -= self.bytes;
        if *taken == 0 {
            by_address.remove(&address);
        }
    }
}

impl Memory {
    // Every change is one assignment, so a panic leaves nothing half done.
    fn by_address(&self) -> MutexGuard<'_, HashMap<Neighbourhood, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::pending,
        task::{Context, Poll},
    };

    use futures_util::{Stream, StreamExt, stream};
    use http_body::{Frame, SizeHint};
    use http_body_util::{Full, StreamBody};
    use tokio::{task::yield_now, time::sleep};

    use super::*;

    fn frames(parts: &'static [&'static str]) -> impl Body<Data = Bytes> {
        StreamBody::new(
            stream::iter(parts)
                .map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from_static(part.as_bytes())))),
        )
    }

    #[tokio::test]
    async fn a_body_of_several_frames_is_joined() {
        assert_eq!(read_body(frames(&["ab", "", "c", "d"]), 4, 1).await, Ok(Bytes::from_static(b"abcd")));
        assert_eq!(read_body(frames(&[]), 4, 1).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn one_byte_too_many_is_too_large_with_or_without_a_length() {
        assert_eq!(read_body(Full::from("abcde"), 4, 1).await, Err(BodyError::TooLarge));
        assert_eq!(read_body(frames(&["abc", "de"]), 4, 1).await, Err(BodyError::TooLarge));
        assert_eq!(read_body(Full::from("abcd"), 4, 1).await, Ok(Bytes::from_static(b"abcd")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_ended_by_the_total_time() {
        let dripping = stream::unfold((), |()| async {
            sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"."))), ()))
        });
        let body = StreamBody::new(Box::pin(dripping));
        assert_eq!(read_body(body, 1024, 30).await, Err(BodyError::TimedOut));
        let silent = StreamBody::new(stream::once(pending::<Result<Frame<Bytes>, Infallible>>()));
        assert_eq!(read_body(silent, 1024, 30).await, Err(BodyError::TimedOut));
    }

    /// A body of which so many bytes have come, a frame after the other, and no more will.
    fn unfinished(bytes: usize, declared: Option<u64>) -> impl Body<Data = Bytes> {
        struct Unfinished<S>(S, Option<u64>);
        impl<S: Stream<Item = Result<Frame<Bytes>, Infallible>> + Unpin> Body for Unfinished<S> {
            type Data = Bytes;
            type Error = Infallible;

            fn poll_frame(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                self.0.poll_next_unpin(cx)
            }

            fn size_hint(&self) -> SizeHint {
                self.1.map(SizeHint::with_exact).unwrap_or_default()
            }
        }
        let come = stream::iter(vec![(); bytes / 100])
            .then(async |()| {
                yield_now().await;
                Ok(Frame::data(Bytes::from_static(&[b'x'; 100])))
            })
            .chain(stream::once(pending()));
        Unfinished(Box::pin(come), declared)
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_arrive_share_a_budget_and_give_it_back_on_every_way_out() {
        let budget = BodyBudget::new(3_000);
        let taken = || budget.0.taken.load(Relaxed);
        for declared in [Some(1_000), None] {
            let mut first = Box::pin(budget.read(unfinished(900, declared), None, 1_000, 30));
            let mut second = Box::pin(budget.read(unfinished(900, declared), None, 1_000, 30));
            for _ in 0..100 {
                assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
                yield_now().await;
            }
            assert!((1_800..=2_000).contains(&taken()), "{}", taken());
            // One that is refused gives back what it had, and leaves room for a smaller one.
            let third = budget.read(unfinished(2_000, declared.map(|_| 2_000)), None, 2_000, 30).await;
            assert_eq!(third.map(|_| ()), Err(BodyError::NoMemory));
            assert!(taken() <= 2_000);
            // One that is here needs none.
            let here = budget.read(Full::from(vec![b'x'; 5_000]), None, 5_000, 30).await.expect("it is here");
            assert_eq!((here.len(), taken() <= 2_000), (5_000, true));
            // Cancelled, and out of time.
            drop(first);
            assert!(taken() <= 1_000);
            assert_eq!(second.await.map(|_| ()), Err(BodyError::TimedOut));
            assert_eq!(taken(), 0);
        }
    }

    #[tokio::test]
    async fn a_body_for_another_costs_its_share_until_its_bytes_are_dropped() {
        let budget = BodyBudget::of_responses(1_000);
        let read = |bytes| budget.read(Full::from(vec![b'x'; bytes]), None, 1_000, 30);
        let first = Bytes::from_owner(read(600).await.expect("a body"));
        let part = first.slice(..1);
        assert_eq!(read(600).await.map(|_| ()), Err(BodyError::NoMemory));
        assert_eq!(read(400).await.map(|body| body.len()), Ok(400));
        drop(first);
        assert_eq!(read(600).await.map(|_| ()), Err(BodyError::NoMemory));
        drop(part);
        assert_eq!(read(1_000).await.map(|body| body.len()), Ok(1_000));
    }

    #[test]
    fn rule_13_responses_that_one_address_does_not_read_leave_memory_to_others() {
        let budget = BodyBudget::new(4_000);
        let hold = |bytes, address: &str| {
            let client = ClientAddress::of(address.parse().expect("an address"));
            budget.hold(Bytes::from(vec![b'x'; bytes]), Some(client))
        };
        let of_one = hold(900, "192.0.2.1").expect("a quarter");
        assert_eq!(hold(900, "192.0.2.1"), Err(BodyError::NoMemoryForAddress));
        let others = ["192.0.2.2", "192.0.2.3", "127.0.0.1"].map(|other| hold(1_000, other));
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(hold(900, "127.0.0.1"), Err(BodyError::NoMemory));
        assert_eq!(hold(100, "192.0.2.4").map(|held| held.len()), Ok(100));
        drop((of_one, others));
        assert!(budget.0.by_address().is_empty());
        // One that is larger than the budget is sent when nobody else has one.
        let large = hold(5_000, "192.0.2.1").expect("there is nothing else");
        assert_eq!(hold(1, "192.0.2.2"), Err(BodyError::NoMemory));
        drop(large);
        assert_eq!(budget.0.taken.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn a_body_that_was_read_keeps_its_share_until_it_is_dropped() {
        let budget = BodyBudget::new(1_000);
        let come = stream::iter(0..3).then(async |_| {
            yield_now().await;
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"hello")))
        });
        let body = budget.read(StreamBody::new(Box::pin(come)), None, 100, 30).await.expect("a body");
        assert_eq!(&*body, b"hellohellohello");
        assert!(budget.0.taken.load(Relaxed) >= 15);
        drop(body);
        assert_eq!(budget.0.taken.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn rule_13_the_bodies_of_one_address_leave_memory_to_others() {
        let budget = BodyBudget::new(4_000);
        let client = |text: &str| Some(ClientAddress::of(text.parse().expect("an address")));
        let arriving = |address| Box::pin(budget.read(unfinished(900, Some(900)), client(address), 900, 30));
        let mut of_one = arriving("192.0.2.1");
        for _ in 0..100 {
            assert!(of_one.as_mut().now_or_never().is_none());
            yield_now().await;
        }
        let refused = arriving("192.0.2.1").await;
        assert_eq!(refused.map(|_| ()), Err(BodyError::NoMemoryForAddress));
        // Others, and the programs of this machine, have room; so has the address afterwards.
        for other in ["192.0.2.2", "127.0.0.1", "::1"] {
            assert_eq!(arriving(other).await.map(|_| ()), Err(BodyError::TimedOut), "{other}");
        }
        drop(of_one);
        assert_eq!(arriving("192.0.2.1").await.map(|_| ()), Err(BodyError::TimedOut));
        assert!(budget.0.by_address().is_empty());
        // One body always fits.
        let small = BodyBudget::new(1_000);
        let only = small.read(unfinished(900, Some(900)), client("192.0.2.1"), 900, 30).await;
        assert_eq!(only.map(|_| ()), Err(BodyError::TimedOut));
    }
}
