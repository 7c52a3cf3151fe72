//! The two commands of the house.
fn main() {}
