//! What the tests of several rooms share: a backend that follows a script, the contract suite that every backend
//! must pass, a real server process with a client that can misbehave, and repositories made for one test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop loudly")]

pub mod contract;
mod graph;
pub mod http;
pub mod load;
mod postgres;
mod quota;
mod repository;
mod scripted;
mod server;

pub use graph::{Graph, Numbers};
pub use postgres::Postgres;
pub use quota::Quota;
pub use repository::Repo;
pub use scripted::{Log, Scripted};
pub use server::{Server, Shared};

/// `values` as the bytes of a tensor.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// The bytes of a tensor as numbers.
pub fn f32_values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|chunk| f32::from_ne_bytes(chunk.try_into().unwrap())).collect()
}

/// Where the suite's small model `name` lies; `models/make.py` says what it does.
pub fn model_file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("models/{name}.onnx"))
}

/// A picture or other file of the fixtures, by its name.
pub fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixture_path(name)).unwrap_or_else(|error| panic!("the fixture {name}: {error}"))
}

/// Where a fixture lies.
pub fn fixture_path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// Where the first of `names` is that this machine has, by `PATH`.
pub fn find_program(names: &[&str]) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let everywhere = |name: &&str| folders.iter().map(|folder| folder.join(name)).collect::<Vec<_>>();
    names.iter().flat_map(everywhere).find(|file| file.is_file())
}

/// Asserts that `docs/<name>`, which is made from code, says `text`; writes it where `CAUDAL_TEST_BLESS` is set.
pub fn check_document(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("CAUDAL_TEST_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/{name} is not what the code says; run CAUDAL_TEST_BLESS=1 cargo test --workspace");
}
