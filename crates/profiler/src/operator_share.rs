//! Splits the frame of opaque code, such as a library without symbols, into operators by their measured shares.

use std::path::PathBuf;

use crate::{
    modules::short_name,
    profile::{Profile, Stack},
};

/// The operators that run in the code of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorShares {
    /// The file.
    pub file: PathBuf,
    /// Frame below the operators, which names their origin.
    pub title: String,
    /// The operators. The sum of their shares is at most 1.
    pub parts: Vec<OperatorShare>,
}

/// An operator's share of the time of opaque code.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorShare {
    /// Frames of the operator, outermost first.
    pub frames: Vec<String>,
    /// Share of the code's time, from 0 to 1.
    pub share: f64,
}

impl OperatorShares {
    /// Splits the stacks of `profile` that end in the file's code and match `wanted`: each operator gets its share of
    /// their weight. The rest stays with the code; stacks in which the code calls other code are not changed.
    pub fn split_stacks(mut self, mut profile: Profile, wanted: impl Fn(&Stack) -> bool) -> Profile {
        // Operators of a kind are adjacent, so that the sum of a kind is exact to one sample.
        self.parts.sort_by(|a, b| a.frames.cmp(&b.frames));
        let frame = format!("[{}]", short_name(&self.file.to_string_lossy()));
        let (split, mut stacks): (Vec<Stack>, Vec<Stack>) =
            profile.stacks.into_iter().partition(|stack| stack.frames.last() == Some(&frame) && wanted(stack));
        stacks.extend(split.iter().flat_map(|stack| self.split_stack(stack)));
        profile.stacks = Profile::new(profile.kind, stacks).stacks;
        profile
    }

    fn split_stack(&self, stack: &Stack) -> Vec<Stack> {
        let (mut split, mut share, mut given) = (Vec::new(), 0.0, 0);
        let mut give = |frames: Vec<String>, upto: u64| {
            let count = upto.saturating_sub(given);
            if count > 0 {
                let amount = u128::from(stack.amount) * u128::from(count) / u128::from(stack.count);
                split.push(Stack { frames, count, amount: amount as u64 });
                given = upto;
            }
        };
        for part in &self.parts {
            share += part.share;
            let names = [&self.title].into_iter().chain(&part.frames).map(|name| name.replace(';', ","));
            let frames = stack.frames.iter().cloned().chain(names).collect();
            give(frames, (stack.count as f64 * share.min(1.0)).round() as u64);
        }
        give(stack.frames.clone(), stack.count);
        split
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn stack(frames: &str, count: u64) -> Stack {
        Stack { frames: frames.split(';').map(str::to_owned).collect(), count, amount: count * 10 }
    }

    fn shares(parts: &[(&str, f64)]) -> OperatorShares {
        let part = |(frames, share): &(&str, f64)| OperatorShare {
            frames: frames.split('/').map(str::to_owned).collect(),
            share: *share,
        };
        OperatorShares {
            file: "/lib/libopaque.so.1.2".into(),
            title: "by share".to_owned(),
            parts: parts.iter().map(part).collect(),
        }
    }

    #[test]
    fn split_stacks_keeps_the_total_weight() {
        let stacks = vec![
            stack("a;run;[libopaque.so]", 100),
            stack("b;run;[libopaque.so]", 7),
            stack("a;run;[libopaque.so];malloc", 3),
            stack("a;[libother.so]", 5),
        ];
        let profile = Profile { lost: 2, ..Profile::new(Kind::Cpu, stacks) };
        let parts = shares(&[("Conv/second", 0.2), ("Add/;", 0.1), ("Conv/first", 0.6)]);
        let put = parts.split_stacks(profile.clone(), |stack| stack.frames[0] == "a");
        assert_eq!(
            (put.total_count(), put.total_amount(), put.lost),
            (profile.total_count(), profile.total_amount(), 2)
        );
        let expected = "a;[libother.so] 5\n\
                        a;run;[libopaque.so] 10\n\
                        a;run;[libopaque.so];by share;Add;, 10\n\
                        a;run;[libopaque.so];by share;Conv;first 60\n\
                        a;run;[libopaque.so];by share;Conv;second 20\n\
                        a;run;[libopaque.so];malloc 3\n\
                        b;run;[libopaque.so] 7\n";
        assert_eq!(put.to_collapsed(), expected);
    }

    #[test]
    fn split_stacks_rounds_each_kind_to_one_sample() {
        let names: Vec<String> =
            (0..400).map(|at| format!("{}/{at}", if at % 4 == 0 { "Add" } else { "Conv" })).collect();
        let all: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0 / 400.0)).collect();
        let put = shares(&all).split_stacks(Profile::new(Kind::Cpu, vec![stack("a;[libopaque.so]", 100)]), |_| true);
        let of = |kind: &str| -> u64 {
            put.stacks
                .iter()
                .filter(|stack| stack.frames.iter().any(|name| name == kind))
                .map(|stack| stack.count)
                .sum()
        };
        assert_eq!((of("Add"), of("Conv"), put.total_count()), (25, 75, 100));
        // Shares above 1 in total are capped.
        let put = shares(&[("a", 0.7), ("b", 0.7)])
            .split_stacks(Profile::new(Kind::Cpu, vec![stack("[libopaque.so]", 10)]), |_| true);
        assert_eq!(put.total_count(), 10);
    }
}
