//! The attribute `#[map_task]` of the crate [`async-map-task`](https://docs.rs/async-map-task).
//!
//! Use it through that crate, with its feature `macros`. It is documented there, as `async_map_task::map_task`.

#![forbid(unsafe_code)]

mod arguments;
mod check;
mod duration;
mod expand;
mod function;
mod lifetimes;
mod unknown;
mod value;

use proc_macro::TokenStream;

#[expect(missing_docs, reason = "the documentation is at the re-export, where its links can be resolved")]
#[proc_macro_attribute]
pub fn map_task(arguments: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(arguments.into(), function.into()).into()
}
