//! The rules that the table compares. All but `Steps` are rules of libraries, written anew from the facts of their sources.

mod aimd;
mod correlation;
mod failsafe;
mod gradient2;
mod steps;
mod vegas;

pub(crate) use aimd::Aimd;
pub(crate) use failsafe::Failsafe;
pub(crate) use gradient2::Gradient2;
pub(crate) use steps::Steps;
pub(crate) use vegas::Vegas;
