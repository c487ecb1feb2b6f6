//! How many bytes the answers to one request may hold. A request of some bytes can name a group, or a partition, many
//! thousand times, and each mention is answered with a copy of its own; all of them are held together until the response
//! is sent.

use std::cell::Cell;

use super::settings::ANSWER_BYTES_MAX;

/// What who asks for more is told, where there is place for a message.
pub(super) const TOO_MUCH: &str = "The answer would be too large. Ask about fewer groups at a time.";

/// What is left for the answers to a request; shared by its calls.
#[derive(Debug)]
pub struct Budget(Cell<usize>);

impl Default for Budget {
    fn default() -> Budget {
        Budget(Cell::new(ANSWER_BYTES_MAX))
    }
}

impl Budget {
    /// Whether so many bytes more may be held. When they may not, nothing that follows may either: it is refused without
    /// being looked at closely.
    pub fn take(&self, bytes: usize) -> bool {
        let left = self.0.get().checked_sub(bytes);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}
