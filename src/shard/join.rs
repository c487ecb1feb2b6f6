//! Waiting for several answers at once, and for the first of two.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// Runs the futures side by side and gives their outputs in order. The first polls happen in order.
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut parts: Vec<Part<F>> = futures.into_iter().map(|future| Part::Running(Box::pin(future))).collect();
    std::future::poll_fn(|cx| {
        let mut running = false;
        for part in &mut parts {
            if let Part::Running(future) = part {
                match future.as_mut().poll(cx) {
                    Poll::Ready(output) => *part = Part::Done(output),
                    Poll::Pending => running = true,
                }
            }
        }
        if running { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    let outputs = parts.into_iter().map(|part| match part {
        Part::Done(output) => output,
        Part::Running(_) => unreachable!("all parts are done"),
    });
    outputs.collect()
}

enum Part<F: Future> {
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
