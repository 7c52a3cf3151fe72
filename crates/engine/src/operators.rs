//! Operator profile: the time of each operator of a model as its backend reports it.

use std::path::PathBuf;

/// An operator as the backend runs it: possibly several operators of the file, fused.
#[derive(Debug, Clone, PartialEq)]
pub struct Operator {
    /// The node's name.
    pub name: String,
    /// Its operator type, such as `Conv`.
    pub kind: String,
    /// The provider that runs it, as the backend names it.
    pub provider: String,
    /// Number of calls.
    pub calls: u64,
    /// Total time in microseconds.
    pub total_us: u64,
}

/// The time of all operators of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorProfile {
    /// The library file that contains the operators' code, as CPU profiles name it.
    pub library: PathBuf,
    /// Number of profiled runs.
    pub runs: usize,
    /// Total time of the runs in microseconds, including gaps between operators.
    pub total_us: u64,
    /// Its operators, the longest total time first.
    pub operators: Vec<Operator>,
}

impl OperatorProfile {
    /// Operators summed by type, the longest total time first; their names are empty.
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
