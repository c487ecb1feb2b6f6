//! Tells the operator when the disk is full, and when it is not any more: one line each, however many requests on
//! however many cores met it, and not more often than is looked.

use std::rc::Rc;
use std::time::Duration;

use rt::Class;

use crate::config::units::format_bytes;
use crate::shard::Shard;

const LOOK_EVERY: Duration = Duration::from_secs(2);
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// So much more must be free than when there was too little: less may come and go by itself.
const FREED_BYTES: u64 = 1 << 20;

/// Ends when there is space again, or when it is time to try whether there is: nobody is told of every kind of space,
/// such as inodes. Said as in [`ran_out`].
pub async fn returns(shard: &Rc<Shard>) {
    ran_out(shard);
    let until = shard.core.now() + TRY_AGAIN_AFTER;
    while shard.store.folder().is_full() && shard.core.now() < until {
        shard.core.sleep(LOOK_EVERY).await;
    }
}

/// An append, or the opening of a log, found no space.
pub fn ran_out(shard: &Rc<Shard>) {
    if !shard.store.folder().set_full(true) {
        return;
    }
    rt::say!(
        "corelog: no space is left in {}: records that need more are refused with KAFKA_STORAGE_ERROR and producers try \
         again; what is stored is served. Free some space, delete a topic or lower its retention; no restart is needed",
        shard.settings.data.display()
    );
    let shard = shard.clone();
    shard.core.clone().spawn(Class::Background, watch(shard)).detach();
}

async fn watch(shard: Rc<Shard>) {
    let dir = shard.settings.data.clone();
    // A file system that cannot be asked counts as full, and is asked again.
    let when_full = shard.core.free_bytes(dir.clone()).await.unwrap_or(0);
    loop {
        shard.core.sleep(LOOK_EVERY).await;
        let free = shard.core.free_bytes(dir.clone()).await.unwrap_or(0);
        if free >= when_full.saturating_add(FREED_BYTES) {
            shard.store.folder().set_full(false);
            rt::say!("corelog: there is space in {} again: {} are free", dir.display(), format_bytes(free));
            return;
        }
    }
}
