//! How long what is held is held, unless it is renewed.

use std::time::Duration;

/// How long a run or a computation is its holder's, unless it is renewed; it is, three times in that time. Two thirds of it
/// are longer than a store tries to reach its server, so that a lease outlives whatever connection comes back.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(60);

/// The shortest lease. It has to be renewed in time.
pub(crate) const MIN_LEASE: Duration = Duration::from_millis(30);
