//! An answer in parts: server-sent events, each with some words.

use bytes::BytesMut;
use caudal_flow::{Call, Fault, StepError};

use super::{
    LARGEST,
    answer::{Chunk, Said},
    spending::Spending,
};
use crate::net::{Body, unreachable};

/// The longest line.
const LINE: usize = 1 << 20;

/// Reads an answer to its end, and says its parts as they come.
pub(super) async fn read(mut body: Body, name: &str, call: &Call, spending: &mut Spending) -> Result<Said, StepError> {
    let (mut lines, mut said, mut all, mut ended) = (Lines::default(), Said::default(), 0, false);
    while let Some(piece) = body.piece().await? {
        all += piece.len();
        lines.add(&piece);
        if all > LARGEST || lines.0.len() > LINE {
            let error = StepError::new(Fault::Output, format!("{name} answers with more than it may"));
            return Err(error.hint("lower max_tokens").for_good());
        }
        while let Some(line) = lines.next() {
            let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { continue };
            if data == b"[DONE]" {
                body.leave();
                return done(said, name);
            }
            let Some(choice) = Chunk::read(data, name, spending)?.choice(name)? else { continue };
            if let Some(words) = choice.message.words().filter(|words| !words.is_empty()) {
                spending.heard(words.len());
                call.say(&words);
                said.text.push_str(&words);
            }
            said.cut |= choice.is_cut();
            ended |= choice.is_last();
        }
    }
    // Some end without the last word, but none without a reason to end.
    if ended { done(said, name) } else { Err(unreachable(format!("{name} broke off in the middle of its answer"))) }
}

fn done(said: Said, name: &str) -> Result<Said, StepError> {
    if said.text.is_empty() && !said.cut {
        let error = StepError::new(Fault::Output, format!("{name} answers without a word"));
        return Err(error.hint("try again; if it stays so, look at the model"));
    }
    Ok(said)
}

/// Lines out of pieces that end anywhere.
#[derive(Default)]
struct Lines(BytesMut);

impl Lines {
    fn add(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    fn next(&mut self) -> Option<BytesMut> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let mut line = self.0.split_to(end + 1);
        line.truncate(end);
        if line.ends_with(b"\r") {
            line.truncate(end - 1);
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Wherever pieces end, the lines are the same.
        #[test]
        fn lines_do_not_depend_on_pieces(text in "([a-z]{0,5}\r?\n){0,6}[a-z]{0,3}", cuts in prop::collection::vec(0usize..60, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for cut in cuts.windows(2) {
                lines.add(&text.as_bytes()[cut[0]..cut[1]]);
                while let Some(line) = lines.next() {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            let whole: Vec<&str> = text.split('\n').collect();
            let expected: Vec<&str> = whole[..whole.len() - 1].iter().map(|line| line.trim_end_matches('\r')).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
