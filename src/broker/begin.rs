//! What has to be true before the first core serves: a folder of ours, a port, and metadata that this process leads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coord::metadata::{Command, Metadata};
use engine::folder::Folder;
use engine::names;
use rt::{Core, Listener, LockGuard};

use super::Common;
use crate::admin;
use crate::metadata_log::MetadataLog;
use crate::settings::{self, Settings};

/// How long a port may be another's. The kernel takes the ring of a killed process apart after the process is gone, and its
/// listeners with it: whoever starts us as soon as it saw the former broker end finds the port taken for some milliseconds.
const PORT_WAIT: Duration = Duration::from_secs(3);
const PORT_RETRY: Duration = Duration::from_millis(20);

/// What core 0 has in hand before any shard exists.
pub(super) struct Begun {
    pub folder: Arc<Folder>,
    /// Held for as long as the process serves the folder.
    pub _lock: LockGuard,
    pub metadata: Metadata,
    pub log: MetadataLog,
    pub listener: Listener,
    pub admin: Option<Listener>,
    pub strays: Vec<String>,
}

pub(super) async fn begin(core: &Core, common: &Common) -> Result<Begun, String> {
    let settings = &common.settings;
    // Before the folder: a start that cannot listen leaves nothing behind.
    let listener = listen_first(core, common.start.listen).await?;
    let admin = match common.start.admin {
        Some(address) => Some(listen(core, address).await.map_err(|error| admin::refused(address, &error))?),
        None => None,
    };
    let (folder, lock) =
        Folder::open(core, &settings.data, core.random_u64()).await.map_err(|error| error.to_string())?;
    let (log, mut metadata) =
        MetadataLog::open(core, &folder, settings.node_id).await.map_err(|error| error.to_string())?;
    let strays = strays(core, &folder, &metadata).await.map_err(|error| error.to_string())?;
    let knows_itself = metadata.image().brokers().next().is_some();
    if let Some(why) = lost_metadata(knows_itself, &strays, &folder.raft_dir()) {
        return Err(why);
    }
    let port = common.start.advertised_port.unwrap_or(listener.local_addr().port());
    let told = settings::listener(common.start.advertised_host.clone(), port);
    register(core, settings, folder.uuid(), told, &log, &mut metadata).await?;
    Ok(Begun { folder: Arc::new(folder), _lock: lock, metadata, log, listener, admin, strays })
}

/// Folders of partitions that the metadata does not know: what a crash left of a deleted topic, or what is left of one
/// whose metadata is gone.
async fn strays(core: &Core, folder: &Folder, metadata: &Metadata) -> std::io::Result<Vec<String>> {
    let mut strays = Vec::new();
    for entry in core.list_dir(folder.logs_dir()).await? {
        let Some(name) = entry.name.to_str() else { continue };
        let known = |topic: engine::ids::TopicId| metadata.image().topic_by_id(topic).is_some();
        if names::parse_folder(name).is_some_and(|id| !known(id.topic)) {
            strays.push(name.to_owned());
        }
    }
    strays.sort();
    Ok(strays)
}

/// A broker that was registered here before is in its own metadata. Where it is not and there are partitions, the
/// metadata is lost, and going on would hide them all.
fn lost_metadata(knows_itself: bool, strays: &[String], raft: &std::path::Path) -> Option<String> {
    let first = strays.first().filter(|_| !knows_itself)?;
    Some(format!(
        "the metadata log in {} is empty, but the data folder holds {} partitions ({first} and so on): the log was lost or \
         removed. Nothing was changed. Put its files back, or move the partitions away to begin anew; `corelog log dump` \
         shows what they hold",
        raft.display(),
        strays.len()
    ))
}

/// Makes this process the incarnation that leads: every partition it leads gets a new epoch, in one command, before the
/// first append (hazard A1).
pub(crate) async fn register(
    core: &Core,
    settings: &Settings,
    storage: [u8; 16],
    listener: coord::metadata::Listener,
    log: &MetadataLog,
    metadata: &mut Metadata,
) -> Result<(), String> {
    let incarnation = (u128::from(core.random_u64()) << 64 | u128::from(core.random_u64())).to_be_bytes();
    let commands = [
        Command::RegisterBroker {
            node: settings.node_id,
            storage,
            incarnation,
            listeners: vec![listener],
            rack: settings.rack.clone(),
        },
        Command::BrokerStarted { node: settings.node_id, incarnation, lost: Vec::new() },
    ];
    let entries = log.commit(&commands).await.map_err(|why| format!("the metadata log failed: {why}"))?;
    for (index, command) in entries {
        let Some(command) = command else {
            metadata.skip(index);
            continue;
        };
        if let Some(refusal) = metadata.apply(index, &command).refused {
            return Err(format!("this broker could not register with its cluster: {}", refusal.message));
        }
    }
    Ok(())
}

/// Finds out whether the port is free before it is shared by this broker's own cores: shared ports would let two brokers
/// serve one address, each with half of the connections.
async fn listen_first(core: &Core, address: SocketAddr) -> Result<Listener, String> {
    let refused = |error: std::io::Error| {
        use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
        let hint = match error.kind() {
            AddrInUse => {
                "Another process is using it (`ss -ltnp` shows which); choose another with --listen HOST:PORT"
            }
            AddrNotAvailable => {
                "This host has no such address (`ip address` shows those it has); choose one of them with --listen \
                 HOST:PORT, or 0.0.0.0 for all"
            }
            PermissionDenied => {
                "Ports below 1024 take a privilege; choose a higher one with --listen HOST:PORT"
            }
            _ => "Choose another with --listen HOST:PORT",
        };
        format!("cannot listen on {address}: {error}. {hint}")
    };
    let probe = listen(core, address).await.map_err(refused)?;
    let address = probe.local_addr();
    drop(probe);
    core.listen_shared(address).await.map_err(refused)
}

/// Takes the port for this process alone, when a broker that was killed just now has let go of it.
async fn listen(core: &Core, address: SocketAddr) -> std::io::Result<Listener> {
    let enough = core.now() + PORT_WAIT;
    loop {
        match core.listen(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && core.now() < enough => {
                core.sleep(PORT_RETRY).await;
            }
            done => return done,
        }
    }
}
