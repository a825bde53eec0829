//! A request of attempts that need a permit of their key.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;

use crate::error::ConfigError;
use crate::limiter::{Acquire, Permit};

/// Ready when a keyed limiter may have room for another key.
pub(in super::super) type Room = BoxFuture<'static, ()>;

/// A request that the driver awaits.
pub(in super::super) enum KeyRequest {
    /// For a permit for the first attempt of a line.
    Permit(Acquire),
    /// For room for a new key in a keyed limiter.
    Room(Room),
}

/// What a request was granted.
pub(in super::super) enum KeyGrant {
    Permit(Result<Permit, ConfigError>),
    Room,
}

impl Future for KeyRequest {
    type Output = KeyGrant;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<KeyGrant> {
        match self.get_mut() {
            Self::Permit(acquire) => Pin::new(acquire).poll(cx).map(KeyGrant::Permit),
            Self::Room(room) => room.as_mut().poll(cx).map(|()| KeyGrant::Room),
        }
    }
}
