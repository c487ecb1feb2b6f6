//! What operators read over HTTP: `GET /metrics` and `GET /healthz`, on core 0, for nobody who was not let in.
//!
//! There is no authentication and nothing here changes anything, so it listens nowhere unless the config names an
//! address. Whoever connects is hostile until proved otherwise: every connection carries one request, which has to be
//! whole within a time and a size, its answer has to be taken within a time, and there are few connections.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rt::{Class, CoreId, Listener, Reservation, Slice, Stream};

use crate::metrics::{CoreMetrics, text};
use crate::shard::Shard;
use crate::shard::join::{before, join_boxed};
use crate::shard::mail::{Answer, Ask};

mod http;

use http::{Request, Response};

/// Open at one time; more are closed at once.
const CONNECTIONS_MAX: usize = 16;
/// Of a request's first line and headers together.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// For the whole of a request to arrive.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// For the whole of an answer to be taken.
const SEND_TIME_MAX: Duration = Duration::from_secs(10);
/// For every core to answer. One that takes longer is stuck.
const CORES_TIME_MAX: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an operator is told whose port for metrics cannot be had.
pub fn refused(address: SocketAddr, error: &std::io::Error) -> String {
    format!("cannot serve metrics on {address}: {error}; change admin.listen")
}

/// Serves until it is aborted.
pub async fn serve(shard: Rc<Shard>, listener: Listener) {
    let open = Rc::new(Cell::new(0_usize));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            shard.core.sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if open.get() >= CONNECTIONS_MAX {
            continue;
        }
        open.set(open.get() + 1);
        let (shard, counted) = (shard.clone(), Counted(open.clone()));
        let core = shard.core.clone();
        core.spawn(Class::Control, async move {
            converse(&shard, &stream).await;
            drop(counted);
        })
        .detach();
    }
}

struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One request and its answer.
async fn converse(shard: &Rc<Shard>, stream: &Stream) {
    let core = &shard.core;
    let response = match before(receive(shard, stream), core.sleep(HEAD_TIME_MAX)).await {
        Some(Some(Ok(request))) => answer(shard, request).await,
        Some(Some(Err(refusal))) => refusal,
        // The peer went away.
        Some(None) => return,
        None => Response::plain(408, "the request took too long\n"),
    };
    let bytes = vec![Slice::from(response.into_bytes())];
    // Whether it arrives is the peer's affair.
    drop(before(stream.send(bytes), core.sleep(SEND_TIME_MAX)).await);
    stream.shutdown();
}

/// The request, what to say to one that cannot be served, or nothing when the connection ends before it is whole.
async fn receive(shard: &Rc<Shard>, stream: &Stream) -> Option<Result<Request, Response>> {
    let mut buffer = shard.core.buffers().take(HEAD_BYTES_MAX, Reservation::Control).await;
    let mut filled = 0;
    while filled < HEAD_BYTES_MAX {
        let (received, back) = stream.recv(buffer, filled..HEAD_BYTES_MAX).await;
        buffer = back;
        match received {
            Ok(count) if count > 0 => filled += count,
            Ok(_) | Err(_) => return None,
        }
        if let Some(request) = http::parse(&buffer[..filled]).transpose() {
            return Some(request);
        }
    }
    Some(Err(Response::plain(431, "the request's head is too large\n")))
}

async fn answer(shard: &Rc<Shard>, request: Request) -> Response {
    let response = match request.path.as_str() {
        "/metrics" => match before(all_cores(shard), shard.core.sleep(CORES_TIME_MAX)).await {
            // Some thousand lines are written by a helper.
            Some(cores) => match shard.core.offload(move || text::prometheus(&cores)).await {
                Ok(text) => Response::new(200, text::CONTENT_TYPE, text),
                Err(_) => Response::plain(500, "the metrics could not be written\n"),
            },
            None => Response::plain(503, "a core does not answer\n"),
        },
        "/healthz" => match before(all_cores(shard), shard.core.sleep(CORES_TIME_MAX)).await {
            Some(cores) => Response::plain(200, &health(&cores)),
            None => Response::plain(503, "a core does not answer\n"),
        },
        _ => Response::plain(404, "there is /metrics and /healthz\n"),
    };
    if request.head_only { response.without_body() } else { response }
}

/// A partition that is offline makes no broker unhealthy: restarting it would take the others away too.
fn health(cores: &[CoreMetrics]) -> String {
    let offline: u64 = cores.iter().map(|core| core.partitions.offline).sum();
    if offline == 0 { "ok\n".to_owned() } else { format!("ok, but {offline} partitions are offline\n") }
}

async fn all_cores(shard: &Rc<Shard>) -> Vec<CoreMetrics> {
    let asks = (0..shard.settings.core_count).map(|core| shard.ask(CoreId(core), Ask::Metrics));
    let answers = join_boxed(asks).await.into_iter().filter_map(|answer| match answer {
        Answer::Metrics(metrics) => Some(*metrics),
        _ => None,
    });
    answers.collect()
}
