//! Waiting for several answers at once, and for the first of two.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// Runs the futures side by side and gives their outputs in order. The first polls happen in order.
pub fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> impl Future<Output = Vec<F::Output>> {
    join_boxed(futures.into_iter().map(Box::pin))
}

/// The same for futures that have boxes of their own.
pub fn join_boxed<F: Future + ?Sized>(
    futures: impl IntoIterator<Item = Pin<Box<F>>>,
) -> impl Future<Output = Vec<F::Output>> {
    let mut parts: Vec<Part<F>> = futures.into_iter().map(Part::Running).collect();
    std::future::poll_fn(move |cx| {
        let mut running = false;
        for part in &mut parts {
            if let Part::Running(future) = part {
                match future.as_mut().poll(cx) {
                    Poll::Ready(output) => *part = Part::Done(output),
                    Poll::Pending => running = true,
                }
            }
        }
        if running {
            return Poll::Pending;
        }
        let outputs = std::mem::take(&mut parts).into_iter().map(|part| match part {
            Part::Done(output) => output,
            Part::Running(_) => unreachable!("all parts are done"),
        });
        Poll::Ready(outputs.collect())
    })
}

enum Part<F: Future + ?Sized> {
    Running(Pin<Box<F>>),
    Done(F::Output),
}

/// `Some` if `future` ends before `limit` does. Never around an append: dropping one must not be able to lose it.
pub async fn before<F: Future>(future: F, limit: impl Future) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut limit = pin!(limit);
    std::future::poll_fn(move |cx: &mut Context<'_>| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        limit.as_mut().poll(cx).map(|_| None)
    })
    .await
}

/// How large the future is that a function makes. What is held for every connection and every request is held to a limit
/// by tests: an `async fn` is as large as the largest thing it awaits, and grows without a word.
#[cfg(test)]
pub(crate) fn future_bytes<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}
