//! Takes the axum snippet out of the README, so that `tidings-readme-axum` is what readers copy.

use std::{env, fs, path::Path};

fn main() {
    let readme = Path::new("../../README.md");
    println!("cargo::rerun-if-changed={}", readme.display());
    let text = fs::read_to_string(readme).expect("the README is at the root of the repository");
    let (_, after) = text.split_once("**axum**").expect("the README has a paragraph for axum");
    let (_, code) = after.split_once("```rust\n").expect("the paragraph for axum has a block of Rust");
    let (code, _) = code.split_once("```").expect("the block of Rust ends");
    let directory = env::var("OUT_DIR").expect("Cargo sets it");
    fs::write(Path::new(&directory).join("readme_axum.rs"), code).expect("Cargo's directory can be written");
}
