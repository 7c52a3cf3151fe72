//! What a store has to live through: killed processes, power cuts, disks that fail or fill up, bits that flip, and many
//! writers at once. Each in short here; `CAUDAL_TEST_FULL=1` in full length, with figures.

#[path = "../contract/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod contract;

mod bits;
mod child;
mod disk;
mod kills;
mod power;
mod room;

/// Whether tests run in full length.
fn full() -> bool {
    std::env::var_os("CAUDAL_TEST_FULL").is_some()
}

/// One number in the suite, another in full length, or that of `CAUDAL_TEST_ROUNDS`.
fn rounds(short: usize, long: usize) -> usize {
    let asked = std::env::var("CAUDAL_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    asked.unwrap_or(if full() { long } else { short })
}

/// Chance, by a seed that is printed and can be given.
fn chance(name: &str) -> fastrand::Rng {
    let given = std::env::var("CAUDAL_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("{name}: CAUDAL_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
