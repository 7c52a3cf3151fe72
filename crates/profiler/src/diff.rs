//! Comparison of two profiles.

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

/// The changes from one profile to another one of the same kind.
#[derive(Debug)]
pub struct ProfileDiff {
    before: Profile,
    after: Profile,
}

/// The change of a function's weight, including its callees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionDelta {
    /// Function name.
    pub name: String,
    /// Increase in samples or bytes; negative for a decrease.
    pub by: i64,
    /// Greatest depth in a stack, from the outermost frame: a deeper function is closer to the cause.
    pub depth: usize,
}

impl Profile {
    /// Parses a profile in pprof or collapsed format.
    ///
    /// # Errors
    /// If the bytes are in neither format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProfileError> {
        match bytes.starts_with(&[0x1f, 0x8b]) {
            true => pprof::read(bytes),
            false => parse_collapsed(bytes),
        }
    }
}

/// Parses collapsed stacks. The format does not say if a weight counts samples or bytes.
fn parse_collapsed(bytes: &[u8]) -> Result<Profile, ProfileError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ProfileError::Unreadable("neither text nor gzip".to_owned()))?;
    let stack = |(index, line): (usize, &str)| {
        let wrong = || ProfileError::Unreadable(format!("line {} is not a stack and a number", index + 1));
        let (frames, weight) = line.rsplit_once(' ').ok_or_else(wrong)?;
        let weight: u64 = weight.parse().map_err(|_| wrong())?;
        let frames = frames.split(';').map(str::to_owned).collect();
        Ok(Stack { frames, count: weight, amount: weight })
    };
    let stacks = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(stack);
    Ok(Profile::new(Kind::Cpu, stacks.collect::<Result<_, ProfileError>>()?))
}

impl ProfileDiff {
    /// The changes from `before` to `after`.
    pub fn new(before: Profile, after: Profile) -> Self {
        Self { before, after }
    }

    /// A flame graph of `after`: red frames grew, blue ones shrank.
    ///
    /// # Errors
    /// If the graph cannot be drawn.
    pub fn flamegraph(&self) -> Result<Vec<u8>, ProfileError> {
        if self.after.total_count() == 0 {
            return Ok(flamegraph::empty_image(self.after.kind));
        }
        let mut lines = Vec::new();
        let text = |profile: &Profile| Cursor::new(profile.to_collapsed().into_bytes());
        differential::from_readers(
            differential::Options::default(),
            text(&self.before),
            text(&self.after),
            &mut lines,
        )?;
        let mut options = flamegraph::graph_options(self.after.kind);
        options.title = format!("{}: changes", options.title);
        options.subtitle = Some("red: more than before; blue: less".to_owned());
        let lines = String::from_utf8_lossy(&lines).into_owned();
        let mut svg = Vec::new();
        from_lines(&mut options, lines.lines(), &mut svg)?;
        Ok(svg)
    }

    /// Functions that grew, by increase; of equal increases, the deeper function comes first.
    pub fn grown_functions(&self) -> Vec<FunctionDelta> {
        let mut all = self.function_deltas();
        all.retain(|delta| delta.by > 0);
        all
    }

    fn function_deltas(&self) -> Vec<FunctionDelta> {
        let mut by: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
        for (profile, sign) in [(&self.before, -1), (&self.after, 1)] {
            for stack in &profile.stacks {
                let weight = sign * profile.stack_weight(stack) as i64;
                let mut seen = HashSet::new();
                for (depth, name) in stack.frames.iter().enumerate().filter(|(_, name)| seen.insert(name.as_str())) {
                    let known = by.entry(name).or_default();
                    *known = (known.0 + weight, known.1.max(depth));
                }
            }
        }
        let mut all: Vec<FunctionDelta> =
            by.into_iter().map(|(name, (by, depth))| FunctionDelta { name: name.to_owned(), by, depth }).collect();
        all.sort_by(|a, b| b.by.cmp(&a.by).then(b.depth.cmp(&a.depth)).then_with(|| a.name.cmp(&b.name)));
        all
    }

    /// Unit of the weights.
    pub fn weight_unit(&self) -> &'static str {
        match self.after.kind {
            Kind::Cpu => "samples",
            Kind::Heap => "bytes",
        }
    }
}
