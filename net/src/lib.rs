//! Bytes in, bytes out: Kafka framing, the message codec and a client without I/O.
