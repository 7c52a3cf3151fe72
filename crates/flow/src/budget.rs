//! Budgets: what may be spent is set aside before it is, and given back where it was not.
//!
//! Quotas stand within each other: a branch's within its run's, that within its pipeline's. What is set aside is taken
//! from all of them or from none, so no order of events can overspend one.

use std::{
    fmt,
    ops::{Add, AddAssign},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// What is or may be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens that were read.
    pub tokens_in: u64,
    /// Tokens that were written.
    pub tokens_out: u64,
    /// Millionths of a US dollar.
    pub cost: u64,
}

impl Usage {
    /// Nothing.
    pub const NONE: Self = Self { tokens_in: 0, tokens_out: 0, cost: 0 };

    /// All tokens.
    pub const fn tokens(self) -> u64 {
        self.tokens_in.saturating_add(self.tokens_out)
    }

    /// In US dollars.
    pub fn dollars(self) -> f64 {
        self.cost as f64 / 1e6
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tokens_in: self.tokens_in.saturating_add(other.tokens_in),
            tokens_out: self.tokens_out.saturating_add(other.tokens_out),
            cost: self.cost.saturating_add(other.cost),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What may be spent at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Millionths of a US dollar.
    pub cost: Option<u64>,
    /// Tokens read and written.
    pub tokens: Option<u64>,
    /// Steps that are begun.
    pub steps: Option<u64>,
}

impl Limits {
    /// The tighter of both, for each.
    #[must_use]
    pub fn tightest(self, other: Self) -> Self {
        let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self {
            cost: least(self.cost, other.cost),
            tokens: least(self.tokens, other.tokens),
            steps: least(self.steps, other.steps),
        }
    }

    /// Whether nothing is limited.
    pub fn none(self) -> bool {
        self == Self::default()
    }
}

/// What is set aside or spent: money, tokens, steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Amount([u64; 3]);

const WHAT: [&str; 3] = ["cost", "tokens", "steps"];

impl Amount {
    fn of(usage: Usage) -> Self {
        Self([usage.cost, usage.tokens(), 0])
    }

    const STEP: Self = Self([0, 0, 1]);
}

/// More was asked for than is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Of what: `cost`, `tokens` or `steps`.
    pub what: &'static str,
    /// How much was asked for.
    pub asked: u64,
    /// How much is left.
    pub left: u64,
    /// The limit.
    pub limit: u64,
    /// Whether it is that of all runs of a pipeline together.
    pub shared: bool,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, asked, left, limit, shared } = *self;
        let whose = if shared { " for all runs of the pipeline" } else { "" };
        if what == "cost" {
            let dollars = |millionths: u64| millionths as f64 / 1e6;
            let (asked, left, limit) = (dollars(asked), dollars(left), dollars(limit));
            return write!(f, "it may cost {asked} USD, and {left} of {limit} USD are left{whose}");
        }
        write!(f, "it needs {asked} {what}, and {left} of {limit} are left{whose}")
    }
}

#[derive(Debug, Default)]
struct Purse {
    limits: [Option<u64>; 3],
    /// Spent and set aside.
    taken: [u64; 3],
    /// Spent alone.
    spent: [u64; 3],
}

impl Purse {
    fn of(limits: Limits) -> Mutex<Self> {
        Mutex::new(Self { limits: [limits.cost, limits.tokens, limits.steps], ..Self::default() })
    }

    fn check(&self, amount: Amount, shared: bool) -> Result<(), Refusal> {
        for ((what, limit), (asked, taken)) in
            WHAT.into_iter().zip(self.limits).zip(amount.0.into_iter().zip(self.taken))
        {
            if let Some(limit) = limit
                && asked > 0
                && taken.saturating_add(asked) > limit
            {
                return Err(Refusal { what, asked, left: limit.saturating_sub(taken), limit, shared });
            }
        }
        Ok(())
    }
}

/// What may be spent, within what whoever is around may spend.
#[derive(Debug)]
pub struct Quota {
    around: Option<Arc<Self>>,
    /// Whether it is that of all runs of a pipeline.
    shared: bool,
    purse: Mutex<Purse>,
}

/// What all runs of a pipeline together may spend, while this process lives or anew each hour, each day.
#[derive(Debug)]
pub struct Allowance {
    limits: Limits,
    each: Option<Duration>,
    /// Since when, and of what. Runs that began earlier go on with what there was then.
    now: Mutex<(Instant, Arc<Quota>)>,
}

impl Allowance {
    /// So much, once or anew after each `each`.
    pub fn new(limits: Limits, each: Option<Duration>) -> Self {
        Self { limits, each, now: Mutex::new((Instant::now(), Quota::shared(limits))) }
    }

    /// What may be spent now.
    pub(crate) fn quota(&self) -> Arc<Quota> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, quota) = &mut *now;
        if self.each.is_some_and(|each| began.elapsed() >= each) {
            (*began, *quota) = (Instant::now(), Quota::shared(self.limits));
        }
        Arc::clone(quota)
    }

    /// What may be spent in all.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// After how long it begins anew.
    pub fn each(&self) -> Option<Duration> {
        self.each
    }

    /// What was spent of it: millionths of a dollar, tokens, steps.
    pub fn spent(&self) -> [u64; 3] {
        self.quota().spent()
    }
}

impl Quota {
    /// A quota of `limits`, within `around`.
    pub fn new(limits: Limits, around: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self { around, shared: false, purse: Purse::of(limits) })
    }

    fn shared(limits: Limits) -> Arc<Self> {
        Arc::new(Self { around: None, shared: true, purse: Purse::of(limits) })
    }

    fn purse(&self) -> MutexGuard<'_, Purse> {
        self.purse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was spent of it: millionths of a dollar, tokens, steps.
    pub fn spent(&self) -> [u64; 3] {
        self.purse().spent
    }

    /// Whether anything is limited here or around.
    pub(crate) fn limits_anything(&self) -> bool {
        self.purse().limits.iter().any(Option::is_some)
            || self.around.as_ref().is_some_and(|around| around.limits_anything())
    }

    fn change(&self, change: impl Fn(&mut Purse)) {
        self.change_where(|_| true, change);
    }

    fn change_where(&self, so: impl Fn(&Self) -> bool, change: impl Fn(&mut Purse)) {
        let mut quota = Some(self);
        while let Some(this) = quota.filter(|this| so(this)) {
            change(&mut this.purse());
            quota = this.around.as_deref();
        }
    }

    /// Takes `amount` here and around, or nowhere.
    fn take(&self, amount: Amount) -> Result<(), Refusal> {
        {
            let mut purse = self.purse();
            purse.check(amount, self.shared)?;
            (0..3).for_each(|i| purse.taken[i] = purse.taken[i].saturating_add(amount.0[i]));
        }
        let taken = self.around.as_ref().map_or(Ok(()), |around| around.take(amount));
        if taken.is_err() {
            let mut purse = self.purse();
            (0..3).for_each(|i| purse.taken[i] = purse.taken[i].saturating_sub(amount.0[i]));
        }
        taken
    }

    /// What may still be set aside here and around; `None` where nothing is limited.
    pub fn left(&self) -> Limits {
        let purse = self.purse();
        let left = |i: usize| purse.limits[i].map(|limit| limit.saturating_sub(purse.taken[i]));
        let own = Limits { cost: left(0), tokens: left(1), steps: left(2) };
        drop(purse);
        self.around.as_ref().map_or(own, |around| own.tightest(around.left()))
    }

    /// Whether `most` could be set aside once others have given back what they have set aside and do not spend.
    pub fn may_reserve_later(&self, most: Usage) -> bool {
        let mut others = false;
        let mut quota = Some(self);
        while let Some(this) = quota {
            let purse = this.purse();
            others |= purse.taken != purse.spent;
            let spent = Purse { limits: purse.limits, taken: purse.spent, spent: purse.spent };
            if spent.check(Amount::of(most), this.shared).is_err() {
                return false;
            }
            quota = this.around.as_deref();
        }
        others
    }

    /// Sets `most` aside.
    pub fn reserve(self: &Arc<Self>, most: Usage) -> Result<Reservation, Refusal> {
        let amount = Amount::of(most);
        self.take(amount)?;
        Ok(Reservation { quota: Some(Arc::clone(self)), amount, most })
    }

    /// Counts a step.
    pub fn step(&self) -> Result<(), Refusal> {
        self.take(Amount::STEP)?;
        self.change(|purse| purse.spent[2] += 1);
        Ok(())
    }

    /// Counts what was spent before: by a run that is taken up again. What all runs may spend knows of it already.
    pub(crate) fn recall(&self, usage: Usage) {
        let amount = Amount::of(usage).0;
        self.change_where(
            |quota| !quota.shared,
            |purse| {
                for (i, amount) in amount.iter().enumerate() {
                    purse.taken[i] = purse.taken[i].saturating_add(*amount);
                    purse.spent[i] = purse.spent[i].saturating_add(*amount);
                }
            },
        );
    }

    /// Parts what is left into equal shares, for branches that run at the same time. The remainder goes to the first
    /// ones. A share stays within this quota, so what a branch leaves is there for who comes after all of them.
    pub fn split(self: &Arc<Self>, shares: usize) -> Vec<Arc<Self>> {
        let purse = self.purse();
        let left: Vec<Option<u64>> =
            (0..3).map(|i| purse.limits[i].map(|limit| limit.saturating_sub(purse.taken[i]))).collect();
        drop(purse);
        let count = shares.max(1) as u64;
        (0..shares as u64)
            .map(|share| {
                let part = |left: Option<u64>| left.map(|left| left / count + u64::from(share < left % count));
                let limits = Limits { cost: part(left[0]), tokens: part(left[1]), steps: part(left[2]) };
                Self::new(limits, Some(Arc::clone(self)))
            })
            .collect()
    }
}

/// What is set aside. Dropped, all of it is given back.
#[derive(Debug)]
pub struct Reservation {
    quota: Option<Arc<Quota>>,
    amount: Amount,
    most: Usage,
}

impl Reservation {
    /// Where nothing is limited.
    pub(crate) const FREE: Self = Self { quota: None, amount: Amount([0; 3]), most: Usage::NONE };

    /// What was set aside.
    pub fn most(&self) -> Usage {
        self.most
    }

    /// What was spent in truth: the rest is given back. More than was set aside is counted too, so that nobody else can
    /// set aside what is gone.
    pub fn settle(mut self, spent: Usage) {
        let Some(quota) = self.quota.take() else { return };
        let (aside, spent) = (self.amount.0, Amount::of(spent).0);
        quota.change(|purse| {
            for i in 0..3 {
                purse.taken[i] = purse.taken[i].saturating_sub(aside[i]).saturating_add(spent[i]);
                purse.spent[i] = purse.spent[i].saturating_add(spent[i]);
            }
        });
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(quota) = self.quota.take() else { return };
        let aside = self.amount.0;
        quota.change(|purse| (0..3).for_each(|i| purse.taken[i] = purse.taken[i].saturating_sub(aside[i])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(tokens_in: u64) -> Usage {
        Usage { tokens_in, ..Usage::NONE }
    }

    #[test]
    fn what_is_set_aside_is_gone_until_it_is_settled() {
        let quota = Quota::new(Limits { tokens: Some(100), ..Limits::default() }, None);
        let first = quota.reserve(tokens(60)).unwrap();
        let refused = quota.reserve(tokens(60)).unwrap_err();
        assert_eq!(refused, Refusal { what: "tokens", asked: 60, left: 40, limit: 100, shared: false });
        first.settle(tokens(30));
        drop(quota.reserve(tokens(70)).unwrap());
        assert!(quota.reserve(tokens(70)).is_ok(), "what was dropped is given back");
        assert_eq!(quota.spent(), [0, 30, 0]);
    }

    #[test]
    fn what_is_refused_around_is_not_taken_within() {
        let run = Quota::new(Limits { tokens: Some(50), ..Limits::default() }, None);
        let branch = Quota::new(Limits { tokens: Some(80), ..Limits::default() }, Some(Arc::clone(&run)));
        assert!(branch.reserve(tokens(60)).is_err());
        let held = branch.reserve(tokens(50)).unwrap();
        held.settle(tokens(50));
        assert_eq!((branch.spent(), run.spent()), ([0, 50, 0], [0, 50, 0]));
    }

    #[test]
    fn left_is_the_least_of_all_quotas_around() {
        let run = Quota::new(Limits { tokens: Some(100), cost: Some(9), ..Limits::default() }, None);
        let branch = Quota::new(Limits { tokens: Some(80), ..Limits::default() }, Some(Arc::clone(&run)));
        assert!(!branch.may_reserve_later(tokens(75)), "nobody has set anything aside");
        let held = run.reserve(tokens(30)).unwrap();
        assert_eq!(branch.left(), Limits { tokens: Some(70), cost: Some(9), steps: None });
        assert!(branch.may_reserve_later(tokens(75)) && !branch.may_reserve_later(tokens(81)));
        held.settle(tokens(10));
        assert_eq!(branch.left().tokens, Some(80));
    }

    #[test]
    fn what_all_may_spend_begins_anew() {
        let all = Allowance::new(Limits { tokens: Some(100), ..Limits::default() }, Some(Duration::from_millis(20)));
        let one = Quota::new(Limits::default(), Some(all.quota()));
        let held = one.reserve(tokens(80)).unwrap();
        let refused = Quota::new(Limits::default(), Some(all.quota())).reserve(tokens(30)).unwrap_err();
        assert_eq!(refused.to_string(), "it needs 30 tokens, and 20 of 100 are left for all runs of the pipeline");
        std::thread::sleep(Duration::from_millis(25));
        assert!(all.quota().reserve(tokens(100)).is_ok(), "another time has begun");
        held.settle(tokens(80));
        assert_eq!(all.spent(), [0, 0, 0], "who began earlier spends of what there was then");
        let ever = Allowance::new(Limits { tokens: Some(100), ..Limits::default() }, None);
        ever.quota().reserve(tokens(70)).unwrap().settle(tokens(70));
        assert_eq!(ever.spent(), [0, 70, 0]);
    }

    #[test]
    fn shares_come_to_what_is_left() {
        let run = Quota::new(Limits { cost: Some(10), steps: Some(2), ..Limits::default() }, None);
        run.step().unwrap();
        let shares = run.split(3);
        let limits: Vec<_> = shares.iter().map(|share| share.purse().limits).collect();
        assert_eq!(limits, [[Some(4), None, Some(1)], [Some(3), None, Some(0)], [Some(3), None, Some(0)]]);
    }
}
