//! New connections, as many as the limit allows over all cores.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rt::{Class, Listener};

use crate::connection;
use crate::shard::Shard;

/// After a failed accept (no descriptors left, say) the next one waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts on one core. `open` counts the connections of all cores.
pub(super) async fn accept(shard: Rc<Shard>, listener: Listener, open: Arc<AtomicUsize>) {
    let connections_max = shard.limits().connections_max;
    let (mut failing, mut full) = (false, false);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The client went away before it was accepted.
            Err(error) if is_of_one_connection(error.kind()) => continue,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    rt::say!(
                        "corelog: connections cannot be accepted: {error}. Clients wait; raise RLIMIT_NOFILE (ulimit -n) \
                         if it is the number of open files"
                    );
                }
                shard.core.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failing = false;
        let counted = Counted::one_more(&open, connections_max);
        if counted.is_none() && !full {
            rt::say!(
                "corelog: {connections_max} connections are open (limits.connections_max); further ones are closed at once"
            );
        }
        full = counted.is_none();
        let Some(counted) = counted else {
            shard.metrics.connection_refused();
            continue;
        };
        let shard = shard.clone();
        shard.core.clone().spawn(Class::Produce, async move {
            let _counted = counted;
            connection::serve(shard, stream).await;
        });
    }
}

fn is_of_one_connection(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, NotConnected};
    matches!(kind, ConnectionAborted | ConnectionReset | NotConnected)
}

/// One connection in the count, also when its task panics.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one_more(open: &Arc<AtomicUsize>, max: usize) -> Option<Counted> {
        let more = |count| (count < max).then_some(count + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Counted(open.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
