//! Payloads of caught panics.
//!
//! A payload is a value of the caller's, and its destructor may panic as well. A caught payload that is not resumed is
//! therefore dropped here and nowhere else.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The payload of a panic.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Returns the message of a panic and drops the payload.
#[cold]
pub(crate) fn into_message(payload: Payload) -> String {
    let message = if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    };
    discard(payload);
    message
}

/// Drops a payload. A panic of its destructor is caught.
pub(crate) fn discard(payload: Payload) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // The destructor of this payload may panic as well, and so on for ever.
        mem::forget(second);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{panic_any, resume_unwind};

    use super::*;

    /// Panics with itself when it is dropped.
    struct Endless;

    impl Drop for Endless {
        fn drop(&mut self) {
            resume_unwind(Box::new(Self));
        }
    }

    #[test]
    fn a_panic_of_a_payload_destructor_is_caught() {
        let caught = catch_unwind(|| panic_any(Endless)).unwrap_err();
        assert_eq!(into_message(caught), "a panic without a message");
        assert_eq!(into_message(Box::new("borrowed")), "borrowed");
        assert_eq!(into_message(Box::new(String::from("owned"))), "owned");
    }
}
