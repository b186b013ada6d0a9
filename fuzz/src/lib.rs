//! The properties that the fuzz targets check: the functions that the property tests of each crate
//! also call.

pub mod sse;
