//! A pipeline put together in Rust: what does not fit does not compile.
//!
//! `cargo run -p caudal-flow --example typed`

use std::time::Duration;

use caudal_flow::{Engine, Options, Pipeline, RunOptions, StepError, Value};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let length = Pipeline::<String, String>::new("length").step("length", |word: &String, _| Ok(word.len() as u64));
    let pipeline = Pipeline::<String, String>::new("words")
        .step("part", |text: &String, _| Ok(text.split(' ').map(str::to_owned).collect::<Vec<_>>()))
        .map("each", length.clone(), 4)
        .step("sum", |lengths: &Vec<u64>, _| match lengths.iter().sum() {
            0 => Err(StepError::input("there are no words")),
            sum => Ok::<u64, _>(sum),
        })
        .cached()
        .timeout(Duration::from_secs(1));
    let engine = Engine::new(Options::default());
    let ran = engine.run(&pipeline.define(), Value::from("steps that fit"), RunOptions::default()).await;
    println!("{:?} in {:?}, {} entries", ran.outcome, ran.took, ran.entries.len());
}
