//! The pages of the guide of which the code needs crates that the main package does not have. Their code is tested here.

#[doc = include_str!("../../src/guide/cookbook_ecosystem.md")]
pub mod cookbook_ecosystem {}

#[doc = include_str!("../../src/guide/past_one_machine.md")]
pub mod past_one_machine {}
