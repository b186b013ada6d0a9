//! The properties that the fuzz targets check: the same functions that the property tests of each crate call.

pub mod sse;
