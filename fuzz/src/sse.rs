//! Properties of `tidings-sse`.

#[path = "../../crates/tidings-sse/tests/sse/properties.rs"]
pub mod properties;
#[path = "../../crates/tidings-sse/tests/sse/reference.rs"]
pub mod reference;
