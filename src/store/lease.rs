//! The default and the minimum duration of a lease.

use std::time::Duration;

/// How long a run or a computation belongs to its holder, unless the lease is renewed. It is renewed three times in this
/// time. Two thirds of it are longer than a store tries to reach its server. So a lease outlives a connection that is
/// restored in that time.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(60);

/// The shortest lease. A shorter one could not be renewed in time.
pub(crate) const MIN_LEASE: Duration = Duration::from_millis(30);
