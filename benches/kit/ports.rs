//! How a change of an endpoint tells its number: by the port that the endpoint has from then on.

/// After the first change; each change takes the next.
pub(crate) const PORT_OF_FIRST_CHANGE: u32 = 20_001;
/// So many changes have ports of their own.
pub(crate) const PORTS: u32 = 20_000;

/// That of a change, counted from 0.
pub(crate) fn port_of(change: usize) -> u32 {
    PORT_OF_FIRST_CHANGE + u32::try_from(change).unwrap() % PORTS
}
