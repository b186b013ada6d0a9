//! The promises of the crate, tested through its public API: published test vectors, and properties
//! that hold for all input. The properties themselves are shared with the fuzz targets in `fuzz/`.

// The fuzz package includes two of these modules and needs their items to be public.
#![allow(unreachable_pub)]

mod equivalence;
mod properties;
mod reference;
mod round_trip;
mod vectors;
