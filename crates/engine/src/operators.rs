//! Where a model's time goes, operator by operator, as its backend tells.

use std::path::PathBuf;

/// An operator of a model's graph, as the backend runs it: it may be several of the file's, fused.
#[derive(Debug, Clone, PartialEq)]
pub struct Operator {
    /// The node's name.
    pub name: String,
    /// What it does, such as `Conv`.
    pub kind: String,
    /// Who runs it, as the backend names it.
    pub provider: String,
    /// How often it ran.
    pub calls: u64,
    /// All its runs together, in microseconds.
    pub total_us: u64,
}

/// What a model spent its time on.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorProfile {
    /// The file of the code that ran them: where profiles of the process show that code.
    pub library: PathBuf,
    /// Runs that were watched.
    pub runs: usize,
    /// All of them together, in microseconds, with what lies between operators.
    pub total_us: u64,
    /// Its operators, the one that took most first.
    pub operators: Vec<Operator>,
}

impl OperatorProfile {
    /// Operators of the same kind together, the one that took most first: its name is empty.
    pub fn by_kind(&self) -> Vec<Operator> {
        let mut kinds: Vec<Operator> = Vec::new();
        for operator in &self.operators {
            let same = |known: &&mut Operator| known.kind == operator.kind && known.provider == operator.provider;
            match kinds.iter_mut().find(same) {
                Some(known) => {
                    known.calls += operator.calls;
                    known.total_us += operator.total_us;
                }
                None => kinds.push(Operator { name: String::new(), ..operator.clone() }),
            }
        }
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.total_us));
        kinds
    }
}
