//! Keeps the service away from internal addresses.
//!
//! The clients choose the URLs, but the service sends the requests, from inside its network. Without this check, a
//! client could reach everything that trusts that network: databases, the pages of routers, and the metadata of a cloud
//! machine at 169.254.169.254, which contain its passwords (*server-side request forgery*).
//!
//! The check is on the address that is connected to, and not on the name. A name can have any address, and a different
//! one each time it is resolved. There are three ways to an address, and each has its check:
//!
//! - A name is resolved by [`PublicOnly`]. The connection uses the addresses that it returns, and no others.
//! - An address in the URL is not resolved: [`check_literal`].
//! - A server can redirect to both: [`redirects`] checks literals, and names are resolved as above.
//!
//! The machine's own public address is not recognized. A firewall is a second line of defence.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use tokio::net::lookup_host;

use crate::mask;

/// The maximum number of redirects of one request.
const MAX_REDIRECTS: usize = 3;

/// The host has only internal addresses.
#[derive(Debug, thiserror::Error)]
#[error("{0} is an internal address, which needs --allow-internal")]
pub(crate) struct InternalAddress(String);

/// Resolves names to their public addresses.
pub(crate) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = lookup_host((name.as_str(), 0)).await?;
            let public: Vec<_> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(InternalAddress(name.as_str().to_owned()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Refuses a URL with an internal address as its host. [`Url`] has normalized all notations, such as `0x7f.1`.
pub(crate) fn check_literal(url: &Url) -> Result<(), InternalAddress> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse() {
        Ok(address) if !is_public(address) => Err(InternalAddress(host.to_owned())),
        _ => Ok(()),
    }
}

/// Follows a few redirects, with [`check_literal`] or without. A redirect with a password is refused, because the client
/// would write it to the log.
pub(crate) fn redirects(allows_internal: bool) -> Policy {
    Policy::custom(move |attempt| match check_literal(attempt.url()) {
        Err(error) if !allows_internal => attempt.error(error),
        _ if mask::has_credentials(attempt.url()) => {
            attempt.error("a redirect contains a name or a password")
        }
        _ => Policy::limited(MAX_REDIRECTS).redirect(attempt),
    })
}

/// Returns `true` if an [`InternalAddress`] is among the causes.
pub(crate) fn is_cause(error: &reqwest::Error) -> bool {
    std::iter::successors(error.source(), |&cause| cause.source()).any(|cause| cause.is::<InternalAddress>())
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => embedded(address).map_or_else(|| is_public_v6(address), is_public_v4),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    /// A public address at which the machines of Azure find their metadata.
    const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

    let is_special = match address.octets() {
        [0, ..] | [192, 0, 0, _] | [240..=255, ..] => true,
        // Addresses behind a provider's translation, and networks for benchmarks.
        [100, 64..=127, ..] | [198, 18..=19, ..] => true,
        _ => address == AZURE,
    };
    !(is_special
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

/// Public addresses are in 2000::/3. So loopback, unique-local and link-local addresses are not among them.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Teredo and other protocols, and two networks for documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Returns the IPv4 address to which a connection to an IPv6 address goes in the end: mapped, 6to4 or NAT64.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0x2002, high, low, ..] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(from(high, low)),
        _ => address.to_ipv4_mapped(),
    }
}
