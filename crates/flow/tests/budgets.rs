//! Budgets are never overspent, whatever the order in which branches set aside, spend and give back; and no answer of a
//! cache is ever another step's.

use std::sync::Arc;

use caudal_flow::{Limits, Quota, Reservation, Usage};
use fastrand::Rng;

/// What a model of one branch does: each step one of these, in an order that the seed chooses among all branches.
struct Branch {
    quota: Arc<Quota>,
    held: Vec<Reservation>,
    /// What this branch spent, by its own count.
    spent: u64,
    limit: Option<u64>,
}

fn tokens(tokens_in: u64) -> Usage {
    Usage { tokens_in, ..Usage::NONE }
}

/// One interleaving: a run of `limit` tokens, parted among branches, some of them parted again, each with limits of its own.
fn interleave(seed: u64) -> u64 {
    let mut random = Rng::with_seed(seed);
    let limit = random.u64(0..2_000);
    let run = Quota::new(Limits { tokens: Some(limit), ..Limits::default() }, None);
    let mut branches: Vec<Branch> = Vec::new();
    for share in run.split(random.usize(1..5)) {
        let shares = if random.bool() { share.split(random.usize(1..4)) } else { vec![share] };
        for share in shares {
            let own = random.bool().then(|| random.u64(0..500));
            let quota = Quota::new(Limits { tokens: own, ..Limits::default() }, Some(share));
            branches.push(Branch { quota, held: Vec::new(), spent: 0, limit: own });
        }
    }
    let mut spent = 0;
    for step in 0..random.u32(20..200) {
        let count = branches.len();
        let branch = &mut branches[random.usize(0..count)];
        match random.u8(0..4) {
            0 | 1 => branch.held.extend(branch.quota.reserve(tokens(random.u64(0..200)))),
            2 if !branch.held.is_empty() => {
                let held = branch.held.swap_remove(random.usize(0..branch.held.len()));
                let most = held.most().tokens_in;
                let truth = random.u64(0..=most);
                held.settle(tokens(truth));
                (branch.spent, spent) = (branch.spent + truth, spent + truth);
            }
            3 if !branch.held.is_empty() => drop(branch.held.swap_remove(random.usize(0..branch.held.len()))),
            _ => {}
        }
        let aside: u64 = branches.iter().flat_map(|branch| &branch.held).map(|held| held.most().tokens_in).sum();
        assert!(spent + aside <= limit, "seed {seed}, step {step}: {spent} spent and {aside} aside of {limit}");
        assert_eq!(run.spent()[1], spent, "seed {seed}, step {step}");
        for branch in &branches {
            assert!(branch.limit.is_none_or(|limit| branch.spent <= limit), "seed {seed}, step {step}");
            assert_eq!(branch.quota.spent()[1], branch.spent, "seed {seed}, step {step}");
        }
    }
    // What is given back can be set aside again, to the last.
    branches.iter_mut().for_each(|branch| branch.held.clear());
    assert!(run.reserve(tokens(limit - spent)).is_ok(), "seed {seed}: {spent} of {limit}");
    spent
}

#[test]
fn no_interleaving_overspends() {
    let many = if std::env::var_os("CAUDAL_TEST_FULL").is_some() { 1_000_000 } else { 20_000 };
    let first = fastrand::u64(..);
    println!("seeds from {first}");
    let spent: u64 = (0..many).map(|number| interleave(first.wrapping_add(number))).sum();
    assert!(spent > many, "the model spends something");
}

/// The same with threads in place of a model.
#[test]
fn no_thread_overspends() {
    let limit = 100_000;
    let run = Quota::new(Limits { tokens: Some(limit), ..Limits::default() }, None);
    std::thread::scope(|scope| {
        for share in run.split(8) {
            scope.spawn(move || {
                let mut random = Rng::new();
                for _ in 0..5_000 {
                    if let Ok(held) = share.reserve(tokens(random.u64(0..100))) {
                        let truth = random.u64(0..=held.most().tokens_in);
                        held.settle(tokens(truth));
                    }
                }
            });
        }
    });
    assert!(run.spent()[1] <= limit && run.spent()[1] > limit / 2, "{:?}", run.spent());
}
