//! For a while somebody else fills the disk.

use std::rc::Rc;
use std::time::Duration;

use super::Clients;

/// What the simulated disk has room for.
pub const FREE_BYTES: u64 = 1 << 40;

pub async fn run(clients: Rc<Clients>) {
    clients.pause(20_000).await;
    clients.disk.set_free_bytes(clients.between(0, 256 << 10));
    clients.core.sleep(Duration::from_millis(clients.between(1, 40))).await;
    clients.disk.set_free_bytes(FREE_BYTES);
}
