//! Start and stop of a broker process: core 0 takes the data folder and the metadata, begins this incarnation's epochs,
//! and then every core opens what it owns. Connections are accepted once everything is open.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coord::metadata::Image;
use engine::folder::Folder;
use engine::store::Store;
use net::error_code::ErrorCode;
use rt::{Class, Core, CoreId, Mesh, Port};

use crate::admin;
use crate::connection;
use crate::controller::Controller;
use crate::settings::Settings;
use crate::shard::join::{join_all, join_boxed};
use crate::shard::mail::{Answer, Ask, Mail};
use crate::shard::{Beginning, CONTROLLER_CORE, Opened, Shard};

mod accept;
mod begin;

#[cfg(test)]
pub(crate) use begin::register;

use accept::accept;
use begin::{Begun, begin};

/// Helper threads for work of a millisecond and more, and one that waits for signals.
const HELPER_THREADS: usize = 3;
/// Where files are read and written by helper threads, so many of them for each core.
const FILE_THREADS_PER_CORE: usize = 4;
/// A start that takes longer than this says how far it is, and again each time.
const PROGRESS_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// What a broker is to be.
pub struct Start {
    pub settings: Settings,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where operators are served, if at all.
    pub admin: Option<SocketAddr>,
    /// The host that clients are told, and the port if it is not the one listened on.
    pub advertised_host: String,
    pub advertised_port: Option<u16>,
}

/// The threads and the memory of its process.
pub struct Process {
    pub pins: Vec<Option<usize>>,
    /// How long a core looks around before it sleeps.
    pub spin: Duration,
    pub core_memory_bytes: usize,
    pub driver: rt::DriverKind,
    /// Whether io_uring is done without, so that helper threads do the work of files.
    pub files_by_threads: bool,
}

/// Runs a broker until it is told to stop by SIGINT, SIGTERM or SIGHUP (its terminal is gone). `ready` is called once,
/// with the address it serves.
///
/// # Errors
/// What kept it from starting, as a sentence for the operator.
pub fn run(
    start: Start,
    process: Process,
    ready: impl Fn(&Ready) + Send + Sync + 'static,
) -> Result<(), String> {
    let file_threads = if process.files_by_threads { FILE_THREADS_PER_CORE * process.pins.len() } else { 0 };
    let config = rt::Config {
        cores: process.pins.iter().map(|pin| rt::CoreConfig { pin: *pin, spin: process.spin }).collect(),
        memory_bytes: process.core_memory_bytes,
        driver: process.driver,
        helper_threads: HELPER_THREADS + file_threads,
        ..rt::Config::default()
    };
    let broker = Broker::new(start, ready, |core| Box::pin(signalled(core)));
    let of_cores = broker.clone();
    let runtime = rt::start(config, move |core| run_and_tell_stalls(core, of_cores.clone()))
        .map_err(|error| format!("the runtime could not start: {error}"))?;
    runtime.join().map_err(|panicked| format!("a core ended with a panic: {panicked}"))?;
    if let Some(Stopped { clean, took }) = broker.0.stopped.lock().ok().and_then(|stopped| *stopped) {
        let how = if clean {
            "stopped cleanly"
        } else {
            "stopped, not cleanly: the next start searches the logs' ends,"
        };
        rt::say!("corelog: {how} in {:.1} s", took.as_secs_f64());
    }
    broker.outcome()
}

/// The budget of a poll is a millisecond (docs/adr/0006): how it was kept is said when a core ends.
async fn run_and_tell_stalls(core: Core, broker: Broker) {
    broker.clone().run_core(core.clone()).await;
    if broker.failed_to_start() {
        return;
    }
    rt::say!("corelog: core {}: {}", core.id().0, core.stats().describe_stalls());
}

/// Ends when the broker is to stop; asked for once, on core 0.
pub type Stop = Pin<Box<dyn Future<Output = ()>>>;

/// One broker, on whatever runtime and clock its cores are run by: threads in production, the simulator in its tests.
#[derive(Clone)]
pub struct Broker(Arc<Common>);

impl Broker {
    pub fn new(
        start: Start,
        ready: impl Fn(&Ready) + Send + Sync + 'static,
        stop: impl Fn(Core) -> Stop + Send + Sync + 'static,
    ) -> Broker {
        let ports = Mesh::new(start.settings.core_count, start.settings.limits.mailbox_messages_max);
        Broker(Arc::new(Common {
            settings: Arc::new(start.settings.clone()),
            start,
            ports: Mutex::new(ports.into_iter().map(Some).collect()),
            ready: Box::new(ready),
            stop: Box::new(stop),
            failure: Mutex::new(None),
            stopped: Mutex::new(None),
            connections: Arc::default(),
        }))
    }

    /// What one core does until the broker is over. Each core of `core_count` runs this once.
    pub async fn run_core(self, core: Core) {
        core_main(core, self.0).await;
    }

    fn failed_to_start(&self) -> bool {
        self.0.failure.lock().is_ok_and(|failure| failure.is_some())
    }

    /// How it went, once all cores are done.
    ///
    /// # Errors
    /// What kept it from starting, as a sentence for the operator.
    pub fn outcome(&self) -> Result<(), String> {
        match self.0.failure.lock().ok().and_then(|mut failure| failure.take()) {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }
}

/// What there is to tell when a broker serves.
pub struct Ready {
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
    /// Which driver runs, and why.
    pub driver: String,
    pub partitions: usize,
    /// What was read behind the checkpoints to find the logs' ends.
    pub searched_bytes: u64,
    /// What was found damaged, and mended.
    pub notes: Vec<String>,
    pub failed: Vec<String>,
    pub took: std::time::Duration,
    pub before: Before,
}

/// How the folder was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It did not exist.
    New,
    Clean,
    Unclean,
}

/// How it ended after it was told to.
#[derive(Clone, Copy)]
struct Stopped {
    clean: bool,
    took: std::time::Duration,
}

struct Common {
    settings: Arc<Settings>,
    start: Start,
    ports: Mutex<Vec<Option<Port<Mail>>>>,
    ready: Box<dyn Fn(&Ready) + Send + Sync>,
    stop: Box<dyn Fn(Core) -> Stop + Send + Sync>,
    failure: Mutex<Option<String>>,
    stopped: Mutex<Option<Stopped>>,
    /// Connections that all cores have open.
    connections: Arc<AtomicUsize>,
}

impl Common {
    fn port(&self, core: &Core) -> Port<Mail> {
        let mut ports = self.ports.lock().expect("nobody panics while holding the ports");
        let mut port = ports[usize::from(core.id().0)].take().expect("each core takes its port once");
        port.attach(core);
        port
    }
}

async fn core_main(core: Core, common: Arc<Common>) {
    let port = common.port(&core);
    if core.id() != CONTROLLER_CORE {
        return follow(core, &common, port).await;
    }
    let others: Vec<CoreId> = (1..common.settings.core_count).map(CoreId).collect();
    match begin(&core, &common).await {
        Ok(begun) => lead(core, &common, port, begun, &others).await,
        Err(why) => {
            *common.failure.lock().expect("nobody panics while holding the failure") = Some(why);
            for other in others {
                port.send(other, Mail::End).await;
            }
        }
    }
}

async fn lead(core: Core, common: &Common, port: Port<Mail>, begun: Begun, others: &[CoreId]) {
    let began = core.now();
    let Begun { folder, _lock, metadata, log, listener, admin, strays } = begun;
    let image = metadata.image().clone();
    let address = listener.local_addr();
    let shard = make_shard(&core, common, folder.clone(), image.clone(), port);
    shard.set_controller(Controller::new(&shard, metadata, log));
    core.spawn(Class::Control, shard.clone().read_mail()).detach();
    // The other cores begin now, beside this one; and before a log that fails here makes the controller tell them of it.
    let begin = |other: CoreId| {
        let beginning = Beginning { folder: folder.clone(), image: image.clone(), address };
        let shard = shard.clone();
        let ask = async move { shard.ask(other, Ask::Begin(Box::new(beginning))).await };
        core.spawn(Class::Control, ask)
    };
    let beginning: Vec<_> = others.iter().map(|other| begin(*other)).collect();
    let mut opened_all = vec![open_all(&shard).await];
    for answer in join_all(beginning).await {
        match answer {
            Ok(Answer::Begun(opened)) => opened_all.push(opened),
            _ => opened_all
                .push(Opened { failed: vec!["a core failed to begin".to_owned()], ..Opened::default() }),
        }
    }
    let took = core.now() - began;
    let partitions = opened_all.iter().map(|opened| opened.partitions).sum();
    let mut notes = folder.notes().to_vec();
    if let Some(first) = strays.first() {
        notes.push(format!(
            "{} folders hold partitions that the metadata does not know ({first} and so on); they are left as they are",
            strays.len()
        ));
    }
    notes.extend(opened_all.iter_mut().flat_map(|opened| std::mem::take(&mut opened.notes)));
    let searched_bytes = opened_all.iter().map(|opened| opened.searched_bytes).sum();
    let failed = opened_all.into_iter().flat_map(|opened| opened.failed).collect();
    let accepting = core.spawn(Class::Control, accept(shard.clone(), listener, common.connections.clone()));
    let admin_address = admin.as_ref().map(|listener| listener.local_addr());
    let administering =
        admin.map(|listener| core.spawn(Class::Control, admin::serve(shard.clone(), listener)));
    (common.ready)(&Ready {
        address,
        admin: admin_address,
        driver: core.describe(),
        partitions,
        searched_bytes,
        notes,
        failed,
        took,
        before: match (folder.is_new(), folder.was_clean()) {
            (true, _) => Before::New,
            (false, true) => Before::Clean,
            (false, false) => Before::Unclean,
        },
    });

    (common.stop)(core.clone()).await;
    let stopping_since = core.now();
    accepting.abort();
    administering.into_iter().for_each(|task| task.abort());
    let stops = others.iter().map(|other| shard.ask(*other, Ask::Stop));
    let (others_stopped, own_stopped) = (join_boxed(stops).await, shard.stop().await);
    let clean =
        own_stopped && others_stopped.iter().all(|answer| matches!(answer, Answer::Stopped { clean: true }));
    if clean && let Err(error) = folder.mark_clean(&core).await {
        rt::say!("corelog: the clean stop could not be noted; the next start checks the logs' ends: {error}");
    }
    let took = core.now() - stopping_since;
    *common.stopped.lock().expect("nobody panics while holding it") = Some(Stopped { clean, took });
    for other in others {
        shard.end(*other).await;
    }
}

async fn follow(core: Core, common: &Common, port: Port<Mail>) {
    let (from, id, beginning) = loop {
        match port.recv().await {
            (from, Mail::Ask { id, ask: Ask::Begin(beginning), .. }) => break (from, id, beginning),
            (_, Mail::End) => return,
            // Nothing else is sent to a core that has not begun.
            (_, _) => {}
        }
    };
    let Beginning { folder, image, address } = *beginning;
    let shard = make_shard(&core, common, folder, image, port);
    core.spawn(Class::Control, shard.clone().read_mail()).detach();
    let mut opened = open_all(&shard).await;
    match core.listen_shared(address).await {
        Ok(listener) => {
            core.spawn(Class::Control, accept(shard.clone(), listener, common.connections.clone())).detach();
        }
        Err(error) => opened.failed.push(format!("core {} cannot listen on {address}: {error}", core.id().0)),
    }
    shard.answer(from, id, Answer::Begun(opened)).await;
    shard.ended.wait().await;
}

fn make_shard(
    core: &Core,
    common: &Common,
    folder: Arc<Folder>,
    image: Image,
    port: Port<Mail>,
) -> Rc<Shard> {
    let limits = engine::log::Limits { journal: common.settings.journal, ..engine::log::Limits::default() };
    let store = Store::with_faults(core, folder, limits, common.settings.faults.engine);
    store.set_partitions(image.partition_count());
    let shard = Shard::new(core.clone(), common.settings.clone(), store, image, port);
    let (store, every) = (shard.store.clone(), common.settings.retention_check);
    core.spawn(Class::Background, async move { store.maintain(every).await }).detach();
    let (store, every) = (shard.store.clone(), common.settings.compaction_check);
    core.spawn(Class::Background, async move { store.compact_when_due(every).await }).detach();
    core.spawn(Class::Control, connection::sweep(shard.clone())).detach();
    shard
}

/// Opens what this core owns.
async fn open_all(shard: &Rc<Shard>) -> Opened {
    shard.host_all();
    let progress = shard.core.spawn(Class::Control, tell_progress(shard.clone()));
    shard.all_open().await;
    progress.abort();
    let hosted = shard.all_hosted();
    let failed = hosted.iter().filter_map(|one| {
        one.failure().map(|why| {
            format!("{}-{}: {why} ({:?})", one.topic_name, one.id.index, ErrorCode::KafkaStorageError)
        })
    });
    let logs: Vec<_> = hosted.iter().filter_map(|one| one.open_log()).collect();
    Opened {
        partitions: logs.len(),
        searched_bytes: logs.iter().map(|log| log.counters().bytes_searched).sum(),
        notes: logs.iter().flat_map(|log| log.notes().iter().cloned()).collect(),
        failed: failed.collect(),
    }
}

/// Tells how far a start is that takes long.
async fn tell_progress(shard: Rc<Shard>) {
    let began = shard.core.now();
    loop {
        shard.core.sleep(PROGRESS_EVERY).await;
        let hosted = shard.all_hosted();
        let opening = hosted.iter().filter(|one| one.is_opening()).count();
        let (open, all, took) = (hosted.len() - opening, hosted.len(), shard.core.now() - began);
        rt::say!("corelog: core {}: {open} of {all} logs open after {} s", shard.core.id().0, took.as_secs());
    }
}

/// Whether this process was started with the signal ignored, as the kernel tells.
fn is_ignored(signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

async fn signalled(core: Core) {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let waited = core.offload(|| {
        let mut wanted = vec![SIGINT, SIGTERM];
        // Whoever started it with nohup wants it to outlive the terminal.
        if !is_ignored(SIGHUP) {
            wanted.push(SIGHUP);
        }
        let mut signals = signal_hook::iterator::Signals::new(wanted)?;
        Ok::<_, std::io::Error>(signals.forever().next())
    });
    let received = waited.await;
    if let Ok(Ok(Some(signal))) = &received {
        let name = match *signal {
            SIGTERM => "SIGTERM",
            SIGINT => "SIGINT",
            _ => "SIGHUP",
        };
        rt::say!("corelog: {name} received, stopping: no more connections, every log is flushed and closed");
    }
    if let Ok(Err(error)) = received {
        rt::say!("corelog: signals cannot be received, stop with SIGKILL: {error}");
        std::future::pending::<()>().await;
    }
}
