//! Two profiles beside each other: what grew and what shrank.

use std::{
    collections::{BTreeMap, HashSet},
    io::Cursor,
};

use inferno::{differential, flamegraph::from_lines};

use crate::{
    error::ProfileError,
    flamegraph, pprof,
    profile::{Kind, Profile, Stack},
};

/// What changed from one profile to another of its kind.
#[derive(Debug)]
pub struct Difference {
    before: Profile,
    after: Profile,
}

/// A function that takes more or less than before, with what it calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// Its name.
    pub name: String,
    /// Samples, or bytes: more than before, or less.
    pub by: i64,
    /// Its place in the stack, counted from the outermost: what is deeper is closer to the cause.
    pub depth: usize,
}

impl Profile {
    /// A profile from a file: collapsed stacks, or pprof.
    ///
    /// # Errors
    /// When the file is neither.
    pub fn read(bytes: &[u8]) -> Result<Self, ProfileError> {
        match bytes.starts_with(&[0x1f, 0x8b]) {
            true => pprof::read(bytes),
            false => collapsed(bytes),
        }
    }
}

/// Lines do not say what they count: samples as well as bytes are numbers.
fn collapsed(bytes: &[u8]) -> Result<Profile, ProfileError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ProfileError::Unreadable("neither text nor gzip".to_owned()))?;
    let stack = |(place, line): (usize, &str)| {
        let wrong = || ProfileError::Unreadable(format!("line {} is not a stack and a number", place + 1));
        let (frames, weight) = line.rsplit_once(' ').ok_or_else(wrong)?;
        let weight: u64 = weight.parse().map_err(|_| wrong())?;
        let frames = frames.split(';').map(str::to_owned).collect();
        Ok(Stack { frames, count: weight, amount: weight })
    };
    let stacks = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(stack);
    Ok(Profile::new(Kind::Cpu, stacks.collect::<Result<_, ProfileError>>()?))
}

impl Difference {
    /// What changed from `before` to `after`.
    pub fn new(before: Profile, after: Profile) -> Self {
        Self { before, after }
    }

    /// A flame graph of what is there now: red what takes more than before, blue what takes less.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub fn flamegraph(&self) -> Result<Vec<u8>, ProfileError> {
        if self.after.count() == 0 {
            return Ok(flamegraph::empty(self.after.kind));
        }
        let mut lines = Vec::new();
        let text = |profile: &Profile| Cursor::new(profile.collapsed().into_bytes());
        differential::from_readers(
            differential::Options::default(),
            text(&self.before),
            text(&self.after),
            &mut lines,
        )?;
        let mut options = flamegraph::options(self.after.kind);
        options.title = format!("{}: what changed", options.title);
        options.subtitle = Some("red: more than before; blue: less".to_owned());
        let lines = String::from_utf8_lossy(&lines).into_owned();
        let mut svg = Vec::new();
        from_lines(&mut options, lines.lines(), &mut svg)?;
        Ok(svg)
    }

    /// What grew, most first; of what grew by the same, the deeper first.
    pub fn grown(&self) -> Vec<Growth> {
        let mut all = self.growth();
        all.retain(|growth| growth.by > 0);
        all
    }

    fn growth(&self) -> Vec<Growth> {
        let mut by: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
        for (profile, sign) in [(&self.before, -1), (&self.after, 1)] {
            for stack in &profile.stacks {
                let weight = sign * profile.weight(stack) as i64;
                let mut seen = HashSet::new();
                for (depth, name) in stack.frames.iter().enumerate().filter(|(_, name)| seen.insert(name.as_str())) {
                    let known = by.entry(name).or_default();
                    *known = (known.0 + weight, known.1.max(depth));
                }
            }
        }
        let mut all: Vec<Growth> =
            by.into_iter().map(|(name, (by, depth))| Growth { name: name.to_owned(), by, depth }).collect();
        all.sort_by(|a, b| b.by.cmp(&a.by).then(b.depth.cmp(&a.depth)).then_with(|| a.name.cmp(&b.name)));
        all
    }

    /// What the numbers count.
    pub fn unit(&self) -> &'static str {
        match self.after.kind {
            Kind::Cpu => "samples",
            Kind::Heap => "bytes",
        }
    }
}
