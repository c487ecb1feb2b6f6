//! The broker: where the parts meet.
