//! The machine: topology, pin plan, kernel and disk probes, doctor.
