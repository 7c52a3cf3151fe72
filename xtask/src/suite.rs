//! `cargo xtask test`: the whole suite.

use crate::{
    arrows,
    say::{self, Result, ask, cargo, step},
    setup, tidy,
};

pub(crate) fn run(filter: &[&str]) -> Result {
    let tools = setup::tests()?;
    step("arrows between rooms");
    arrows::run()?;
    step("words of documents");
    tidy::run()?;
    if ask("cargo", &["fmt", "--version"]).is_some() {
        step("format");
        say::run(cargo().args(["fmt", "--all", "--check"]))?;
    }
    if ask("cargo", &["clippy", "--version"]).is_some() {
        step("lints");
        say::run(tools.equip(cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])))?;
    }
    step("tests");
    say::run(tools.equip(cargo().args(["test", "--workspace", "--no-fail-fast"]).args(filter)))
}
