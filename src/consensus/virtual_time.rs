//! Time that a simulation runs by: it stands still while anything can be done, and jumps to the
//! next timer when nothing can. One clock a thread.
//!
//! A simulation calls [`begin`], and has its single-threaded tokio runtime call [`advance`]
//! whenever the thread is about to be parked. Without [`begin`], time is the machine's.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[derive(Debug, Default)]
struct Clock {
    now: Duration,
    counter: u64,
    timers: BTreeMap<(Duration, u64), Waker>,
}

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

/// From here on, this thread's time is virtual, and begins at zero.
pub fn begin() {
    CLOCK.set(Some(Clock::default()));
}

/// From here on, this thread's time is the machine's again.
pub fn end() {
    CLOCK.set(None);
}

/// Jumps to the next timer, and wakes who waits for it.
pub fn advance() {
    let waker = CLOCK.with_borrow_mut(|clock| {
        let clock = clock.as_mut()?;
        let ((deadline, _), waker) = clock.timers.pop_first()?;
        clock.now = clock.now.max(deadline);
        Some(waker)
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn virtual_now() -> Option<Duration> {
    CLOCK.with_borrow(|clock| clock.as_ref().map(|clock| clock.now))
}

/// Time since some point in the past, the same for the whole process or simulation.
pub fn now() -> Duration {
    static BEGINNING: OnceLock<std::time::Instant> = OnceLock::new();
    virtual_now().unwrap_or_else(|| BEGINNING.get_or_init(std::time::Instant::now).elapsed())
}

/// Waits until [`now`] is `deadline`.
pub fn sleep_until(deadline: Duration) -> Sleep {
    match virtual_now() {
        Some(_) => Sleep(Inner::Virtual { deadline, id: None }),
        None => {
            let rest = deadline.saturating_sub(now());
            Sleep(Inner::Real(Box::pin(tokio::time::sleep(rest))))
        }
    }
}

/// Waits that long.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now().saturating_add(duration))
}

/// See [`sleep`].
#[derive(Debug)]
pub struct Sleep(Inner);

#[derive(Debug)]
enum Inner {
    Real(Pin<Box<tokio::time::Sleep>>),
    Virtual { deadline: Duration, id: Option<u64> },
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Inner::Real(sleep) => sleep.as_mut().poll(cx),
            Inner::Virtual { deadline, id } => CLOCK.with_borrow_mut(|clock| {
                let Some(clock) = clock else { return Poll::Ready(()) };
                if clock.now >= *deadline {
                    return Poll::Ready(());
                }
                let id = *id.get_or_insert_with(|| {
                    clock.counter += 1;
                    clock.counter
                });
                clock.timers.insert((*deadline, id), cx.waker().clone());
                Poll::Pending
            }),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Inner::Virtual { deadline, id: Some(id) } = &self.0 {
            // The thread, and its clock with it, may be gone.
            let _ = CLOCK.try_with(|clock| {
                if let Ok(mut clock) = clock.try_borrow_mut()
                    && let Some(clock) = clock.as_mut()
                {
                    clock.timers.remove(&(*deadline, *id));
                }
            });
        }
    }
}

/// A future that may take too long.
#[derive(Debug)]
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

/// It did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it took too long")]
pub struct TooLong;

/// Lets `future` take until [`now`] is `deadline`.
pub fn timeout_at<F: Future>(deadline: Duration, future: F) -> Timeout<F> {
    Timeout { future: Box::pin(future), sleep: sleep_until(deadline) }
}

/// Lets `future` take that long.
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    timeout_at(now().saturating_add(duration), future)
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, TooLong>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(cx).map(|()| Err(TooLong))
    }
}
