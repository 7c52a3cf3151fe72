//! What all runs of a pipeline together may spend.

mod common;

use std::{sync::Arc, time::Duration};

use caudal_flow::{Allowance, Definition, Fault, Limits, Outcome, RunError, RunOptions, Step, Usage, Value, later};
use common::{define, engine};

/// A leaf that sets 60 tokens aside and spends as many as it is given.
fn spend(name: &str) -> Step {
    let act = later("spend", |call| async move {
        let tokens_in = call.input.as_i64().unwrap_or_default() as u64;
        call.reserve(Usage { tokens_in: 60, ..Usage::NONE })?.settle(Usage { tokens_in, ..Usage::NONE });
        Ok(call.input.clone())
    });
    Step::act(name, act)
}

fn limited(steps: impl IntoIterator<Item = Step>) -> Definition {
    let mut definition = define(steps);
    let limits = Limits { tokens: Some(100), ..Limits::default() };
    definition.all_runs = Some(Arc::new(Allowance::new(limits, None)));
    definition
}

#[tokio::test]
async fn runs_spend_of_one_purse() {
    let (engine, definition) = (engine(), limited([spend("one")]));
    let run = |tokens: i64| engine.run(&definition, tokens.into(), RunOptions::default());
    assert_eq!(run(30).await.output(), Ok(30.into()));
    assert_eq!(run(20).await.output(), Ok(20.into()));
    match run(10).await.outcome {
        Outcome::Failed(RunError::Step { error, .. }) => {
            assert_eq!(error.fault, Fault::Budget);
            assert_eq!(&*error.message, "it needs 60 tokens, and 50 of 100 are left for all runs of the pipeline");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(definition.all_runs.as_ref().unwrap().spent(), [0, 50, 3], "steps are counted, whatever became of them");
}

#[tokio::test]
async fn what_goes_its_own_way_spends_of_its_run() {
    let (engine, aside) = (engine(), spend("aside").with(|policy| policy.background = true));
    let definition = define([aside]);
    let options = |tokens| RunOptions {
        id: Some(format!("of {tokens}").replace(' ', "-").into()),
        limits: Limits { tokens: Some(tokens), ..Limits::default() },
        ..RunOptions::default()
    };
    for (tokens, enough) in [(100, true), (50, false)] {
        engine.run(&definition, Value::from(30), options(tokens)).await.output().unwrap();
        let id = format!("of-{tokens}.aside");
        let entries = match engine.live(&id) {
            Some(run) => {
                while !run.over() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                run.log().entries()
            }
            None => panic!("{id} was not begun"),
        };
        assert_eq!(entries[0].error.is_none(), enough, "{entries:?}");
    }
}
