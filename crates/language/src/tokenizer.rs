//! From text to token ids, as the model's `tokenizer.json` says.

use std::borrow::Cow;

use caudal_types::{ErrorKind, Explain};
use tokenizers::{Encoding, PostProcessor, TruncationDirection};

/// The ids of one text in the order in which the model takes them, special tokens included.
pub type Tokens = Vec<u32>;

/// Bytes of a text that are tokenized at a time. A longer text is cut at blanks, so that one of megabytes neither takes
/// many times its size in memory nor keeps a thread for seconds.
const PIECE: usize = 32 << 10;
/// Most bytes of a piece that cannot be cut, as it has no blanks. What is longer is cut all the same.
const LONGEST_PIECE: usize = 1 << 20;

/// Tokens that most encoders take: what is assumed where nothing says otherwise.
const USUAL_TOKENS: usize = 512;

/// What a text becomes before a model sees it.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Most tokens of a text, special tokens included.
    max_tokens: usize,
    /// Special tokens that each text gets.
    special: usize,
    /// One more than the largest id.
    vocabulary: u32,
}

/// Why there is no tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// The file is none that the library reads.
    #[error("tokenizer.json is not a tokenizer: {0}")]
    Unreadable(String),
    /// Special tokens alone are more than the model takes.
    #[error("embedding.max_tokens is {max_tokens}, and each text gets {special} special tokens")]
    NoRoom {
        /// Most tokens.
        max_tokens: usize,
        /// Special tokens of each text.
        special: usize,
    },
}

/// How many tokens a text has that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// So many.
    #[error("{0} tokens")]
    Tokens(usize),
    /// So many in its beginning; the rest was not looked at.
    #[error("more than {0} tokens")]
    MoreThan(usize),
}

/// Why a text cannot be given to the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// There is nothing to make a vector of.
    #[error("is empty")]
    Empty,
    /// More than the model takes, and nobody said that it may be cut.
    #[error("has {has}; the model accepts {max_tokens}. Set \"truncate\": true to cut it")]
    TooLong {
        /// What it has.
        has: TooLong,
        /// Most tokens.
        max_tokens: usize,
    },
    /// An id that stands for nothing.
    #[error("has the token {id}, which is not in the model's vocabulary of {vocabulary}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// One more than the largest id.
        vocabulary: u32,
    },
    /// The library does not know what to do with it.
    #[error("cannot be tokenized: {0}")]
    Untokenizable(String),
}

impl Explain for TextError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLong { .. } => ErrorKind::TextTooLong,
            _ => ErrorKind::InvalidParameter,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Empty => "send at least one character or token",
            Self::TooLong { .. } => {
                "cut it, or send it in pieces; embedding.truncate in model.yaml cuts all that are too long"
            }
            Self::UnknownToken { .. } => "send ids of this model's own tokenizer, or the text itself",
            Self::Untokenizable(_) => "send other text",
        }
        .into()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. A text gets at most `max_tokens` tokens; where that is not said, as many as the file
    /// cuts texts to, or 512.
    pub fn new(json: &[u8], max_tokens: Option<usize>) -> Result<Self, TokenizerError> {
        let mut inner =
            tokenizers::Tokenizer::from_bytes(json).map_err(|error| TokenizerError::Unreadable(error.to_string()))?;
        let cut = inner.get_truncation().map(|truncation| truncation.max_length);
        // Both are done here, where the batch and the caller's wish are known.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| TokenizerError::Unreadable(error.to_string()))?;
        let max_tokens = max_tokens.or(cut).unwrap_or(USUAL_TOKENS);
        let special = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_tokens <= special {
            return Err(TokenizerError::NoRoom { max_tokens, special });
        }
        let largest = inner.get_vocab(true).into_values().max();
        Ok(Self { inner, max_tokens, special, vocabulary: largest.map_or(0, |id| id + 1) })
    }

    /// How many token ids there are: each is less.
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    /// Most tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The tokens of `text`. What is too long is cut at its end if it may be.
    pub fn encode(&self, text: &str, may_cut: bool) -> Result<Tokens, TextError> {
        let mut work = Encode::new(text, may_cut);
        loop {
            if let Some(tokens) = work.step(self)? {
                return Ok(tokens);
            }
        }
    }

    /// `ids` as they are, if the model can take them. What is too long is cut at its end if it may be.
    pub fn accept(&self, mut ids: Tokens, may_cut: bool) -> Result<Tokens, TextError> {
        if ids.len() > self.max_tokens {
            self.refuse(TooLong::Tokens(ids.len()), may_cut)?;
            ids.truncate(self.max_tokens);
        }
        match ids.iter().find(|id| **id >= self.vocabulary) {
            Some(id) => Err(TextError::UnknownToken { id: *id, vocabulary: self.vocabulary }),
            None if ids.is_empty() => Err(TextError::Empty),
            None => Ok(ids),
        }
    }

    /// The tokens of a piece of a text, without special ones.
    fn piece(&self, text: &str) -> Result<Encoding, TextError> {
        self.inner.encode_fast(text, false).map_err(untokenizable)
    }

    /// Whether `tokens` without the special ones are more than the model takes.
    fn is_full(&self, tokens: usize) -> bool {
        tokens + self.special > self.max_tokens
    }

    /// The tokens of a text of which `encoding` is the beginning, or all of it if it is `whole`.
    fn finish(&self, mut encoding: Encoding, whole: bool, may_cut: bool) -> Result<Tokens, TextError> {
        if self.is_full(encoding.len()) {
            let tokens = encoding.len() + self.special;
            self.refuse(if whole { TooLong::Tokens(tokens) } else { TooLong::MoreThan(tokens) }, may_cut)?;
            encoding.truncate(self.max_tokens - self.special, 0, TruncationDirection::Right);
            encoding.take_overflowing();
        }
        let whole = self.inner.post_process(encoding, None, true).map_err(untokenizable)?;
        match whole.get_ids() {
            [] => Err(TextError::Empty),
            ids => Ok(ids.to_vec()),
        }
    }

    fn refuse(&self, has: TooLong, may_cut: bool) -> Result<(), TextError> {
        if may_cut { Ok(()) } else { Err(TextError::TooLong { has, max_tokens: self.max_tokens }) }
    }
}

fn untokenizable(error: tokenizers::Error) -> TextError {
    TextError::Untokenizable(error.to_string())
}

/// A text on its way to tokens, a piece at a time: between two pieces others can have their turn.
///
/// Tokens count, not bytes: a megabyte of blanks before two words are two words. A text that is too long is known to be
/// after a piece of it.
#[derive(Debug)]
pub struct Encode<T> {
    text: T,
    may_cut: bool,
    /// How far it has been tokenized.
    at: usize,
    /// What came of that.
    encoding: Option<Encoding>,
}

impl<T: AsRef<str>> Encode<T> {
    /// Begins with `text`. What is too long is cut at its end if it may be.
    pub fn new(text: T, may_cut: bool) -> Self {
        Self { text, may_cut, at: 0, encoding: None }
    }

    /// Tokenizes the next piece. The tokens of the text, once they are known.
    #[caudal_observe::profile("tokenize")]
    pub fn step(&mut self, tokenizer: &Tokenizer) -> Result<Option<Tokens>, TextError> {
        let text = self.text.as_ref();
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        let rest = &text[self.at..];
        let (mut end, blank) = cut(rest, PIECE);
        let mut piece = tokenizer.piece(&rest[..end])?;
        let before = self.encoding.as_ref().map_or(0, Encoding::len);
        if !blank && end < rest.len() && !tokenizer.is_full(before + piece.len()) {
            // A word of this length that is few tokens may be one: it is one only as a whole.
            end = word_end(rest, end);
            piece = tokenizer.piece(&rest[..end])?;
        }
        self.at += end;
        match &mut self.encoding {
            Some(encoding) => encoding.merge_with(piece, false),
            none => *none = Some(piece),
        }
        let tokens = self.encoding.as_ref().map_or(0, Encoding::len);
        let done = self.at == text.len();
        if !done && !tokenizer.is_full(tokens) {
            return Ok(None);
        }
        let encoding = self.encoding.take().unwrap_or_default();
        tokenizer.finish(encoding, done, self.may_cut).map(Some)
    }
}

/// Where `text` is cut: behind at most `most` bytes, before the last blank there, if there is one; and whether there is.
fn cut(text: &str, most: usize) -> (usize, bool) {
    if text.len() <= most {
        return (text.len(), true);
    }
    let end = boundary(text, most);
    // The blank belongs to the word behind it, as many tokenizers have it.
    let blank = text[..end].char_indices().rev().find(|(at, letter)| *at > 0 && letter.is_whitespace());
    blank.map_or((end, false), |(at, _)| (at, true))
}

/// The last place in `text`, at most `most`, between two letters.
fn boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The end of the word that continues at `from` in `text`; for a very long word, the end of the part that is read.
fn word_end(text: &str, from: usize) -> usize {
    let most = boundary(text, LONGEST_PIECE);
    text[from..most].find(char::is_whitespace).map_or(most, |at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of a tiny vocabulary between two special tokens, as BERT has them.
    const JSON: &str = r###"{
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 6}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [], "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}, "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "a": 4, "cat": 5, "##s": 6, "sleeps": 9}}
    }"###;

    fn tokenizer(max_tokens: Option<usize>) -> Tokenizer {
        Tokenizer::new(JSON.as_bytes(), max_tokens).unwrap()
    }

    #[test]
    fn a_text_becomes_its_words_between_special_tokens() {
        let tokenizer = tokenizer(None);
        assert_eq!(tokenizer.encode("A cat sleeps", false).unwrap(), [1, 4, 5, 9, 2], "and is not padded");
        assert_eq!(tokenizer.encode("cats bark", false).unwrap(), [1, 5, 6, 3, 2]);
        assert_eq!(tokenizer.encode(" ", false).unwrap(), [1, 2]);
        assert_eq!(tokenizer.encode("", false), Err(TextError::Empty));
    }

    #[test]
    fn what_is_too_long_is_refused_or_cut_and_keeps_its_end_mark() {
        let words = "a cat sleeps a cat sleeps a cat";
        let refused = |has| Err(TextError::TooLong { has, max_tokens: 6 });
        assert_eq!(tokenizer(None).encode(words, false), refused(TooLong::Tokens(10)));
        assert_eq!(tokenizer(None).encode(words, true).unwrap(), [1, 4, 5, 9, 4, 2]);
        assert_eq!(tokenizer(Some(4)).encode(words, true).unwrap(), [1, 4, 5, 2]);
        assert_eq!(tokenizer(Some(10)).encode(words, false).unwrap().len(), 10);
        let many = "cat ".repeat(1 << 20);
        let Err(TextError::TooLong { has: TooLong::MoreThan(more), .. }) = tokenizer(None).encode(&many, false) else {
            panic!("four megabytes of words are too long")
        };
        assert!((PIECE / 8..=PIECE).contains(&more), "a piece of it tells: {more}");
        assert_eq!(tokenizer(None).encode(&many, true).unwrap(), [1, 5, 5, 5, 5, 2]);
    }

    #[test]
    fn a_text_is_measured_in_tokens_and_not_in_bytes() {
        for blank in [" ", "\n", "\r\n", "\u{3000}", " \t"] {
            let blanks = blank.repeat(200_000 / blank.len());
            for text in [format!("{blanks}a cat"), format!("a{blanks}cat{blanks}"), format!("a cat{blanks}")] {
                for may_cut in [false, true] {
                    assert_eq!(tokenizer(None).encode(&text, may_cut).unwrap(), [1, 4, 5, 2], "{blank:?}");
                }
            }
        }
        let blob = "ä".repeat(300_000);
        assert_eq!(tokenizer(None).encode(&blob, false).unwrap(), [1, 3, 2], "one word, however long");
        assert_eq!(tokenizer(None).encode(&format!("a {blob} cat"), false).unwrap(), [1, 4, 3, 5, 2]);
        assert!(tokenizer(None).encode(&"ä".repeat(3 << 19), false).is_ok(), "in pieces, each a word");
    }

    #[test]
    fn pieces_of_a_long_text_are_the_same_tokens_as_the_whole() {
        let words = ["a", "cat", "cats", "sleeps", "b", "x".repeat(200).as_str()].map(str::to_owned);
        let blanks = [" ", "  ", "\n", "\t "];
        let text: String = (0..10_000).map(|i| format!("{}{}", words[i * 31 % 97 % 6], blanks[i * 7 % 4])).collect();
        assert!(text.len() > 8 * PIECE);
        let tokenizer = tokenizer(Some(1 << 20));
        let whole = tokenizer.inner.encode_fast(text.as_str(), true).unwrap();
        assert_eq!(tokenizer.encode(&text, false).unwrap(), whole.get_ids());
    }

    #[test]
    fn a_text_is_cut_before_blanks() {
        assert_eq!(cut("ab cd", 5), (5, true));
        assert_eq!(cut("ab cd", 4), (2, true));
        assert_eq!(cut("ab cd", 2), (2, false));
        assert_eq!(cut("   cd", 3), (2, true));
        assert_eq!(cut("ääää", 3), (2, false));
        assert_eq!(cut(" abcd", 3), (3, false), "a piece is never empty");
        assert_eq!(word_end("abcd ef", 2), 4);
        assert_eq!(word_end("abcdef", 2), 6);
    }

    #[test]
    fn ids_are_taken_as_they_are_if_the_model_knows_them() {
        let tokenizer = tokenizer(None);
        assert_eq!(tokenizer.accept(vec![4, 5, 9], false).unwrap(), [4, 5, 9]);
        assert_eq!(tokenizer.accept(vec![4, 10], false), Err(TextError::UnknownToken { id: 10, vocabulary: 10 }));
        assert_eq!(tokenizer.accept(vec![], false), Err(TextError::Empty));
        assert_eq!(tokenizer.accept(vec![4; 7], true).unwrap(), [4; 6]);
        assert!(tokenizer.accept(vec![4; 7], false).is_err());
    }

    #[test]
    fn a_file_that_is_no_tokenizer_says_so() {
        for json in ["", "{}", "[1]", "{\"model\": {\"type\": \"Wishes\"}}"] {
            assert!(matches!(Tokenizer::new(json.as_bytes(), None), Err(TokenizerError::Unreadable(_))), "{json}");
        }
        let none = Tokenizer::new(JSON.as_bytes(), Some(2)).unwrap_err();
        assert_eq!(none, TokenizerError::NoRoom { max_tokens: 2, special: 2 });
    }
}
