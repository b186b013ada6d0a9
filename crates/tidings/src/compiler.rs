//! Compiles the patterns of untrusted clients at a bounded share of the machine's CPU time.
//!
//! One thread compiles the patterns, one at a time and in the order of the requests, and rests as
//! long as it has worked. However many clients ask for however large patterns, compiling takes half
//! of one processor and none of the threads that serve. A known pattern is answered at once. A
//! request whose caller has stopped waiting is skipped.

use std::{
    collections::HashMap,
    fmt, io,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tidings_log::parts::lock;
use tidings_topic::{Invalid, Matcher, PatternSyntax, Validator};
use tokio::sync::watch;

use crate::error::Error;

/// Distinct patterns that wait to be compiled. One more is refused with [`PatternError::Busy`].
const WAITING_MAX: usize = 256;
/// The thread rests after it has worked for this long: long enough that the clock's resolution does
/// not slow down short work, and short enough that a thread that shares its processor and has to
/// serve soon runs.
const WORK_BEFORE_REST: Duration = Duration::from_millis(1);

/// Why there is no matcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PatternError {
    /// The text is not a pattern that can be used.
    Invalid(Invalid),
    /// More patterns wait to be compiled than the limit allows, or none can be compiled at the
    /// moment.
    Busy,
}

impl From<Invalid> for PatternError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<PatternError> for Error {
    fn from(error: PatternError) -> Self {
        match error {
            PatternError::Invalid(invalid) => invalid.into(),
            PatternError::Busy => Self::Overloaded,
        }
    }
}

/// See the module's documentation.
pub(crate) struct Compiler {
    validator: Validator,
    work: Work,
    waiting: Waiting,
    /// What to compile. The thread is started with the first of them and ends with the hub.
    jobs: Mutex<Option<SyncSender<Job>>>,
}

/// What the thread does for each pattern.
type Work = Arc<dyn Fn(&Wanted) -> Compiled + Send + Sync>;
type Compiled = Result<Matcher, Invalid>;

/// A text, and how it is read.
type Wanted = (PatternSyntax, Arc<str>);
/// What is being compiled, so that a second request for it waits for the same answer.
type Waiting = Arc<Mutex<HashMap<Wanted, Answer>>>;
/// Its receivers are the requests that wait.
type Answer = Arc<watch::Sender<Option<Compiled>>>;
type Job = (Wanted, Answer);

impl Compiler {
    pub(crate) fn new(validator: Validator) -> Self {
        let compiling = validator.clone();
        Self::with_work(validator, Arc::new(move |(syntax, text)| compiling.matcher(*syntax, text)))
    }

    fn with_work(validator: Validator, work: Work) -> Self {
        Self { validator, work, waiting: Waiting::default(), jobs: Mutex::default() }
    }

    /// See [`Hub::matcher`](crate::Hub::matcher).
    pub(crate) async fn matcher(&self, syntax: PatternSyntax, text: &str) -> Result<Matcher, PatternError> {
        if let Some(known) = self.validator.known_matcher(syntax, text) {
            return Ok(known?);
        }
        let mut answer = self.ask((syntax, text.into()))?;
        // The channel closes without an answer if compiling panicked.
        let compiled = answer.wait_for(Option::is_some).await.map_err(|_| PatternError::Busy)?;
        Ok(compiled.clone().ok_or(PatternError::Busy)??)
    }

    fn ask(&self, wanted: Wanted) -> Result<watch::Receiver<Option<Compiled>>, PatternError> {
        let mut waiting = lock(&self.waiting);
        if let Some(answer) = waiting.get(&wanted) {
            return Ok(answer.subscribe());
        }
        let answer = Answer::default();
        let receiver = answer.subscribe();
        self.send((wanted.clone(), Arc::clone(&answer)))?;
        waiting.insert(wanted, answer);
        Ok(receiver)
    }

    fn send(&self, job: Job) -> Result<(), PatternError> {
        let mut jobs = lock(&self.jobs);
        if jobs.is_none() {
            let started = self.start().inspect_err(|error| {
                tracing::warn!(%error, "cannot start the thread that compiles patterns");
            });
            *jobs = Some(started.map_err(|_| PatternError::Busy)?);
        }
        let sender = jobs.as_ref().ok_or(PatternError::Busy)?;
        sender.try_send(job).map_err(|_| PatternError::Busy)
    }

    fn start(&self) -> io::Result<SyncSender<Job>> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let (work, waiting) = (Arc::clone(&self.work), Arc::clone(&self.waiting));
        let compile_all = move || compile_all(&receiver, &waiting, &*work);
        thread::Builder::new().name("patterns".to_owned()).spawn(compile_all)?;
        Ok(sender)
    }
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").finish_non_exhaustive()
    }
}

fn compile_all(jobs: &Receiver<Job>, waiting: &Waiting, work: &dyn Fn(&Wanted) -> Compiled) {
    let mut pace = WorkPace::default();
    while let Ok((wanted, answer)) = jobs.recv() {
        {
            let mut waiting = lock(waiting);
            if answer.receiver_count() == 0 {
                waiting.remove(&wanted);
                continue;
            }
        }
        let begun = Instant::now();
        // A bug in the parser of patterns must not stop the compiler for all.
        let compiled = panic::catch_unwind(AssertUnwindSafe(|| work(&wanted)));
        let worked = begun.elapsed();
        lock(waiting).remove(&wanted);
        if let Ok(compiled) = compiled {
            answer.send_replace(Some(compiled));
        }
        drop(answer);
        if let Some(rest) = pace.rest_after(worked) {
            thread::sleep(rest);
        }
    }
}

/// How long the thread has worked since it last rested.
#[derive(Debug, Default)]
struct WorkPace {
    worked: Duration,
}

impl WorkPace {
    /// How long to rest now, if at all.
    fn rest_after(&mut self, worked: Duration) -> Option<Duration> {
        self.worked += worked;
        (self.worked >= WORK_BEFORE_REST).then(|| std::mem::take(&mut self.worked))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    };

    use PatternSyntax::{UriTemplate, UrlPattern};
    use futures_util::{FutureExt, future::join_all};

    use super::*;

    /// A compiler that waits for a signal before each pattern, and the count of the patterns that
    /// it has begun.
    fn gated() -> (Arc<Compiler>, Sender<()>, Arc<AtomicUsize>) {
        let (open, gate) = channel();
        let gate = Mutex::new(gate);
        let begun = Arc::<AtomicUsize>::default();
        let validator = Validator::default();
        let (compiling, counter) = (validator.clone(), Arc::clone(&begun));
        let work: Work = Arc::new(move |(syntax, text)| {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = gate.lock().expect("unpoisoned").recv();
            compiling.matcher(*syntax, text)
        });
        (Arc::new(Compiler::with_work(validator, work)), open, begun)
    }

    #[tokio::test]
    async fn new_patterns_wait_in_a_bounded_queue_and_known_ones_do_not_wait() {
        let (compiler, open, begun) = gated();
        open.send(()).expect("the compiler listens");
        let known = compiler.matcher(UrlPattern, "/known/:id").await.expect("a pattern");
        let flood: Vec<_> = (0..WAITING_MAX + 50).map(|number| format!("/flood/{number}/(a*)*")).collect();
        let mut waiting: Vec<_> =
            flood.iter().map(|text| Box::pin(compiler.matcher(UrlPattern, text))).collect();
        let refused = waiting.iter_mut().filter_map(FutureExt::now_or_never).collect::<Vec<_>>();
        assert!((49..=50).contains(&refused.len()), "the thread may have taken one: {}", refused.len());
        assert!(refused.iter().all(|refusal| *refusal == Err(PatternError::Busy)));
        assert_eq!(compiler.matcher(UrlPattern, "/known/:id").now_or_never(), Some(Ok(known)));
        assert!(matches!(
            compiler.matcher(UrlPattern, "").now_or_never(),
            Some(Err(PatternError::Invalid(_)))
        ));
        assert!(begun.load(Ordering::SeqCst) <= 2, "one at a time");
    }

    #[tokio::test]
    async fn a_pattern_is_compiled_once_even_if_it_is_invalid() {
        let (compiler, open, begun) = gated();
        drop(open);
        for text in ["/rooms/:id", "/("] {
            let before = begun.load(Ordering::SeqCst);
            let first = compiler.matcher(UrlPattern, text).await;
            let again = join_all((0..1_000).map(|_| compiler.matcher(UrlPattern, text))).await;
            assert!(again.iter().all(|answer| *answer == first));
            assert_eq!(begun.load(Ordering::SeqCst), before + 1, "{text}");
        }
    }

    #[tokio::test]
    async fn one_text_in_two_syntaxes_is_compiled_twice() {
        let (compiler, open, begun) = gated();
        drop(open);
        for _ in 0..2 {
            let one = compiler.matcher(UrlPattern, "/a{b}").await.expect("a pattern");
            let other = compiler.matcher(UriTemplate, "/a{b}").await.expect("a template");
            assert_eq!((one.type_name(), other.type_name()), ("urlpattern", "uritemplate"));
        }
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn concurrent_requests_for_one_pattern_share_one_compilation() {
        let (compiler, open, begun) = gated();
        let mut waiting: Vec<_> =
            (0..10 * WAITING_MAX).map(|_| Box::pin(compiler.matcher(UrlPattern, "/rooms/:id"))).collect();
        assert!(waiting.iter_mut().all(|pattern| pattern.now_or_never().is_none()));
        drop(open);
        assert!(join_all(waiting).await.iter().all(Result::is_ok));
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_cancelled_request_is_not_compiled() {
        let (compiler, open, begun) = gated();
        let texts: Vec<_> = (0..100).map(|number| format!("/gone/{number}/:id")).collect();
        for text in &texts {
            // Polled once, and dropped.
            assert!(compiler.matcher(UrlPattern, text).now_or_never().is_none());
        }
        drop(open);
        compiler.matcher(UrlPattern, "/last/:id").await.expect("a pattern");
        assert!(begun.load(Ordering::SeqCst) <= 2, "at most the compilation that began before the drop");
    }

    #[tokio::test]
    async fn a_panic_while_compiling_stops_neither_hub_nor_compiler() {
        let validator = Validator::default();
        let compiling = validator.clone();
        let work: Work = Arc::new(move |(syntax, text)| {
            assert_ne!(&**text, "/panic/:id", "this panic belongs to the test");
            compiling.matcher(*syntax, text)
        });
        let compiler = Compiler::with_work(validator, work);
        assert_eq!(compiler.matcher(UrlPattern, "/panic/:id").await, Err(PatternError::Busy));
        assert!(compiler.matcher(UrlPattern, "/next/:id").await.is_ok());
    }

    #[tokio::test]
    async fn five_patterns_that_take_long_leave_the_processor_half_of_the_time() {
        const WORK: Duration = Duration::from_millis(10);
        let validator = Validator::default();
        let compiling = validator.clone();
        let work: Work = Arc::new(move |(syntax, text)| {
            thread::sleep(WORK);
            compiling.matcher(*syntax, text)
        });
        let compiler = Compiler::with_work(validator, work);
        let begun = Instant::now();
        for number in 0..5 {
            compiler.matcher(UrlPattern, &format!("/{number}/:id")).await.expect("a pattern");
        }
        assert!(begun.elapsed() >= 9 * WORK, "it rests after each but the last: {:?}", begun.elapsed());
    }

    #[test]
    fn the_thread_rests_as_long_as_it_has_worked() {
        let mut pace = WorkPace::default();
        let (mut worked, mut rested) = (Duration::ZERO, Duration::ZERO);
        for micros in [10, 3_000, 82_000, 5, 900, 4_000, 100].repeat(100) {
            worked += Duration::from_micros(micros);
            rested += pace.rest_after(Duration::from_micros(micros)).unwrap_or_default();
            assert!(rested + WORK_BEFORE_REST >= worked);
        }
    }
}
