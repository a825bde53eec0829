//! The items of a run on more than one machine: each is a durable call to a handler in Restate.
//!
//! The task, its verdict, its order and its result stay as they are; only the map function changes. Instead of doing the
//! work, it hands the item to [Restate](https://restate.dev), a durable execution engine, which has it run on any of
//! many machines, sees to it that it is run again where a machine dies, and keeps the outcome. [The
//! guide](crate::guide::past_one_machine) says when this pays, how to start it all, and what survives what.
//!
//! This is the side of the caller, and speaks HTTP/1.1 with the engine's ingress and its admin API, from version 1.7 on.
//! The workers are programs of your own with the engine's own SDK.

mod answer;
mod builder;
mod call;
mod cancel;
mod engine;
mod error;
mod handler;
mod reply;
mod server;

pub use self::builder::RestateBuilder;
pub use self::engine::Restate;
pub use self::error::RestateError;
pub use self::handler::Handler;
