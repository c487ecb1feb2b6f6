//! What must be agreed on: the metadata state machine and Raft, without I/O.
