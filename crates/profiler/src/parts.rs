//! What opaque code does, as somebody else has timed it, put where a profile shows all of that code as one frame.

use std::path::PathBuf;

use crate::{
    modules::short,
    profile::{Profile, Stack},
};

/// What the code of one file does.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The file.
    pub file: PathBuf,
    /// What stands below the parts: whose they are, and that each has but its share.
    pub title: String,
    /// The parts. Their shares sum up to 1, or to less.
    pub parts: Vec<Part>,
}

/// A part of what code does.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its names, the outermost first.
    pub frames: Vec<String>,
    /// Its share of the code's time, from 0 to 1.
    pub share: f64,
}

impl Parts {
    /// `profile` with the parts on those stacks that end in the file's code and to which `wanted` says yes, each part with
    /// its share of their weight. What the shares leave over stays with the code, and what the code calls elsewhere stays
    /// where it is.
    pub fn put_into(mut self, mut profile: Profile, wanted: impl Fn(&Stack) -> bool) -> Profile {
        // Neighbours round together: the sum of a kind is right to one sample, however many parts it has.
        self.parts.sort_by(|a, b| a.frames.cmp(&b.frames));
        let frame = format!("[{}]", short(&self.file.to_string_lossy()));
        let (split, mut stacks): (Vec<Stack>, Vec<Stack>) =
            profile.stacks.into_iter().partition(|stack| stack.frames.last() == Some(&frame) && wanted(stack));
        stacks.extend(split.iter().flat_map(|stack| self.split(stack)));
        profile.stacks = Profile::new(profile.kind, stacks).stacks;
        profile
    }

    fn split(&self, stack: &Stack) -> Vec<Stack> {
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

    fn parts(parts: &[(&str, f64)]) -> Parts {
        let part = |(frames, share): &(&str, f64)| Part {
            frames: frames.split('/').map(str::to_owned).collect(),
            share: *share,
        };
        Parts {
            file: "/lib/libopaque.so.1.2".into(),
            title: "by share".to_owned(),
            parts: parts.iter().map(part).collect(),
        }
    }

    #[test]
    fn parts_stand_on_the_code_by_their_shares_and_nothing_is_lost() {
        let stacks = vec![
            stack("a;run;[libopaque.so]", 100),
            stack("b;run;[libopaque.so]", 7),
            stack("a;run;[libopaque.so];malloc", 3),
            stack("a;[libother.so]", 5),
        ];
        let profile = Profile { lost: 2, ..Profile::new(Kind::Cpu, stacks) };
        let parts = parts(&[("Conv/second", 0.2), ("Add/;", 0.1), ("Conv/first", 0.6)]);
        let put = parts.put_into(profile.clone(), |stack| stack.frames[0] == "a");
        assert_eq!((put.count(), put.amount(), put.lost), (profile.count(), profile.amount(), 2));
        let expected = "a;[libother.so] 5\n\
                        a;run;[libopaque.so] 10\n\
                        a;run;[libopaque.so];by share;Add;, 10\n\
                        a;run;[libopaque.so];by share;Conv;first 60\n\
                        a;run;[libopaque.so];by share;Conv;second 20\n\
                        a;run;[libopaque.so];malloc 3\n\
                        b;run;[libopaque.so] 7\n";
        assert_eq!(put.collapsed(), expected);
    }

    #[test]
    fn many_small_parts_of_few_samples_sum_up_to_their_kind() {
        let names: Vec<String> =
            (0..400).map(|at| format!("{}/{at}", if at % 4 == 0 { "Add" } else { "Conv" })).collect();
        let all: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0 / 400.0)).collect();
        let put = parts(&all).put_into(Profile::new(Kind::Cpu, vec![stack("a;[libopaque.so]", 100)]), |_| true);
        let of = |kind: &str| -> u64 {
            put.stacks
                .iter()
                .filter(|stack| stack.frames.iter().any(|name| name == kind))
                .map(|stack| stack.count)
                .sum()
        };
        assert_eq!((of("Add"), of("Conv"), put.count()), (25, 75, 100));
        // Shares that are more than there is give no more than there is.
        let put = parts(&[("a", 0.7), ("b", 0.7)])
            .put_into(Profile::new(Kind::Cpu, vec![stack("[libopaque.so]", 10)]), |_| true);
        assert_eq!(put.count(), 10);
    }
}
