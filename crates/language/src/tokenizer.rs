//! Tokenizer: converts texts to token ids as the model's `tokenizer.json` defines.

use std::borrow::Cow;

use caudal_types::{ErrorKind, Explain};
use tokenizers::{Encoding, PostProcessor, TruncationDirection};

/// The token ids of one text in the model's order, special tokens included.
pub type Tokens = Vec<u32>;

/// Bytes that are tokenized at a time. Longer texts are split at whitespace, so that a text of megabytes neither needs
/// many times its size in memory nor occupies a thread for seconds.
const PIECE_BYTES: usize = 32 << 10;
/// Maximum size of a piece without whitespace; longer ones are split anywhere.
const MAX_PIECE_BYTES: usize = 1 << 20;

/// The limit of tokens if neither settings nor file define one; that of most encoders.
const DEFAULT_MAX_TOKENS: usize = 512;

/// Tokenizer of one model.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Maximum number of tokens of a text, special tokens included.
    max_tokens: usize,
    /// Special tokens that are added to each text.
    special: usize,
    /// The largest id plus one.
    vocabulary: u32,
}

/// The reason why a tokenizer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// The library cannot read the file.
    #[error("tokenizer.json is not a tokenizer: {0}")]
    Unreadable(String),
    /// The special tokens alone exceed the model's limit.
    #[error("embedding.max_tokens is {max_tokens}, and each text gets {special} special tokens")]
    NoRoom {
        /// The limit of tokens.
        max_tokens: usize,
        /// Special tokens of each text.
        special: usize,
    },
}

/// The number of tokens of a text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenCount {
    /// The exact number.
    #[error("{0} tokens")]
    Tokens(usize),
    /// The number in its beginning; the rest was not tokenized.
    #[error("more than {0} tokens")]
    MoreThan(usize),
}

/// The reason why a text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// It has no tokens.
    #[error("is empty")]
    Empty,
    /// It exceeds the model's limit, and truncation was not requested.
    #[error("has {has}; the model accepts {max_tokens}. Set \"truncate\": true to cut it")]
    TooLong {
        /// Its number of tokens.
        has: TokenCount,
        /// The limit of tokens.
        max_tokens: usize,
    },
    /// A token id is not in the vocabulary.
    #[error("has the token {id}, which is not in the model's vocabulary of {vocabulary}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// The largest id plus one.
        vocabulary: u32,
    },
    /// The library cannot tokenize it.
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
    /// Parses a `tokenizer.json`. The limit is `max_tokens` if given, else the limit in the file, else 512.
    pub fn new(json: &[u8], max_tokens: Option<usize>) -> Result<Self, TokenizerError> {
        let mut inner =
            tokenizers::Tokenizer::from_bytes(json).map_err(|error| TokenizerError::Unreadable(error.to_string()))?;
        let cut = inner.get_truncation().map(|truncation| truncation.max_length);
        // Padding and truncation are done by the caller, who knows the batch and the request.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| TokenizerError::Unreadable(error.to_string()))?;
        let max_tokens = max_tokens.or(cut).unwrap_or(DEFAULT_MAX_TOKENS);
        let special = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_tokens <= special {
            return Err(TokenizerError::NoRoom { max_tokens, special });
        }
        let largest = inner.get_vocab(true).into_values().max();
        Ok(Self { inner, max_tokens, special, vocabulary: largest.map_or(0, |id| id + 1) })
    }

    /// The number of token ids; each id is less.
    pub fn vocabulary_size(&self) -> u32 {
        self.vocabulary
    }

    /// Maximum number of tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The tokens of `text`. With `may_cut` a text that is too long is truncated at its end.
    pub fn encode(&self, text: &str, may_cut: bool) -> Result<Tokens, TextError> {
        let mut work = IncrementalEncoder::new(text, may_cut);
        loop {
            if let Some(tokens) = work.encode_next_piece(self)? {
                return Ok(tokens);
            }
        }
    }

    /// `ids` if they are valid for the model. With `may_cut` too many are truncated at their end.
    pub fn validate_ids(&self, mut ids: Tokens, may_cut: bool) -> Result<Tokens, TextError> {
        if ids.len() > self.max_tokens {
            self.reject_unless_truncated(TokenCount::Tokens(ids.len()), may_cut)?;
            ids.truncate(self.max_tokens);
        }
        match ids.iter().find(|id| **id >= self.vocabulary) {
            Some(id) => Err(TextError::UnknownToken { id: *id, vocabulary: self.vocabulary }),
            None if ids.is_empty() => Err(TextError::Empty),
            None => Ok(ids),
        }
    }

    /// The tokens of a piece of a text, without special tokens.
    fn tokenize_piece(&self, text: &str) -> Result<Encoding, TextError> {
        self.inner.encode_fast(text, false).map_err(to_text_error)
    }

    /// Whether `tokens` without special tokens exceed the model's limit.
    fn is_full(&self, tokens: usize) -> bool {
        tokens + self.special > self.max_tokens
    }

    /// The tokens of a text whose beginning is `encoding`; the whole text if `whole`.
    fn finish_tokens(&self, mut encoding: Encoding, whole: bool, may_cut: bool) -> Result<Tokens, TextError> {
        if self.is_full(encoding.len()) {
            let tokens = encoding.len() + self.special;
            self.reject_unless_truncated(
                if whole { TokenCount::Tokens(tokens) } else { TokenCount::MoreThan(tokens) },
                may_cut,
            )?;
            encoding.truncate(self.max_tokens - self.special, 0, TruncationDirection::Right);
            encoding.take_overflowing();
        }
        let whole = self.inner.post_process(encoding, None, true).map_err(to_text_error)?;
        match whole.get_ids() {
            [] => Err(TextError::Empty),
            ids => Ok(ids.to_vec()),
        }
    }

    fn reject_unless_truncated(&self, has: TokenCount, may_cut: bool) -> Result<(), TextError> {
        if may_cut { Ok(()) } else { Err(TextError::TooLong { has, max_tokens: self.max_tokens }) }
    }
}

fn to_text_error(error: tokenizers::Error) -> TextError {
    TextError::Untokenizable(error.to_string())
}

/// Encodes a text piece by piece, so that other work can run in between.
///
/// The limit counts tokens, not bytes: a megabyte of whitespace before two words is two words. A text that is too long
/// is detected after the piece that exceeds the limit.
#[derive(Debug)]
pub struct IncrementalEncoder<T> {
    text: T,
    may_cut: bool,
    /// Number of bytes tokenized.
    at: usize,
    /// Their encoding.
    encoding: Option<Encoding>,
}

impl<T: AsRef<str>> IncrementalEncoder<T> {
    /// Starts to encode `text`. With `may_cut` a text that is too long is truncated at its end.
    pub fn new(text: T, may_cut: bool) -> Self {
        Self { text, may_cut, at: 0, encoding: None }
    }

    /// Tokenizes the next piece; returns the tokens of the text when it is complete.
    #[caudal_observe::profile("tokenize")]
    pub fn encode_next_piece(&mut self, tokenizer: &Tokenizer) -> Result<Option<Tokens>, TextError> {
        let text = self.text.as_ref();
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        let rest = &text[self.at..];
        let (mut end, blank) = piece_end(rest, PIECE_BYTES);
        let mut piece = tokenizer.tokenize_piece(&rest[..end])?;
        let before = self.encoding.as_ref().map_or(0, Encoding::len);
        if !blank && end < rest.len() && !tokenizer.is_full(before + piece.len()) {
            // A very long word that gives few tokens may be a single token, but only as a whole.
            end = word_end(rest, end);
            piece = tokenizer.tokenize_piece(&rest[..end])?;
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
        tokenizer.finish_tokens(encoding, done, self.may_cut).map(Some)
    }
}

/// The end of the first piece of `text`: at most `most` bytes, before the last whitespace if there is any; and whether
/// there is.
fn piece_end(text: &str, most: usize) -> (usize, bool) {
    if text.len() <= most {
        return (text.len(), true);
    }
    let end = char_boundary_before(text, most);
    // The whitespace belongs to the word after it, as in many tokenizers.
    let blank = text[..end].char_indices().rev().find(|(at, letter)| *at > 0 && letter.is_whitespace());
    blank.map_or((end, false), |(at, _)| (at, true))
}

/// The last character boundary of `text` that is at most `most`.
fn char_boundary_before(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The end of the word that continues at `from` in `text`, or the end of the maximum piece.
fn word_end(text: &str, from: usize) -> usize {
    let most = char_boundary_before(text, MAX_PIECE_BYTES);
    text[from..most].find(char::is_whitespace).map_or(most, |at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tiny vocabulary between two special tokens, like BERT's.
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
    fn encode_adds_special_tokens() {
        let tokenizer = tokenizer(None);
        assert_eq!(tokenizer.encode("A cat sleeps", false).unwrap(), [1, 4, 5, 9, 2], "and is not padded");
        assert_eq!(tokenizer.encode("cats bark", false).unwrap(), [1, 5, 6, 3, 2]);
        assert_eq!(tokenizer.encode(" ", false).unwrap(), [1, 2]);
        assert_eq!(tokenizer.encode("", false), Err(TextError::Empty));
    }

    #[test]
    fn long_text_is_refused_or_truncated_before_end_token() {
        let words = "a cat sleeps a cat sleeps a cat";
        let refused = |has| Err(TextError::TooLong { has, max_tokens: 6 });
        assert_eq!(tokenizer(None).encode(words, false), refused(TokenCount::Tokens(10)));
        assert_eq!(tokenizer(None).encode(words, true).unwrap(), [1, 4, 5, 9, 4, 2]);
        assert_eq!(tokenizer(Some(4)).encode(words, true).unwrap(), [1, 4, 5, 2]);
        assert_eq!(tokenizer(Some(10)).encode(words, false).unwrap().len(), 10);
        let many = "cat ".repeat(1 << 20);
        let Err(TextError::TooLong { has: TokenCount::MoreThan(more), .. }) = tokenizer(None).encode(&many, false)
        else {
            panic!("four megabytes of words are too long")
        };
        assert!((PIECE_BYTES / 8..=PIECE_BYTES).contains(&more), "a piece of it tells: {more}");
        assert_eq!(tokenizer(None).encode(&many, true).unwrap(), [1, 5, 5, 5, 5, 2]);
    }

    #[test]
    fn text_length_is_measured_in_tokens() {
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
    fn incremental_encoding_equals_whole_encoding() {
        let words = ["a", "cat", "cats", "sleeps", "b", "x".repeat(200).as_str()].map(str::to_owned);
        let blanks = [" ", "  ", "\n", "\t "];
        let text: String = (0..10_000).map(|i| format!("{}{}", words[i * 31 % 97 % 6], blanks[i * 7 % 4])).collect();
        assert!(text.len() > 8 * PIECE_BYTES);
        let tokenizer = tokenizer(Some(1 << 20));
        let whole = tokenizer.inner.encode_fast(text.as_str(), true).unwrap();
        assert_eq!(tokenizer.encode(&text, false).unwrap(), whole.get_ids());
    }

    #[test]
    fn pieces_end_before_whitespace() {
        assert_eq!(piece_end("ab cd", 5), (5, true));
        assert_eq!(piece_end("ab cd", 4), (2, true));
        assert_eq!(piece_end("ab cd", 2), (2, false));
        assert_eq!(piece_end("   cd", 3), (2, true));
        assert_eq!(piece_end("ääää", 3), (2, false));
        assert_eq!(piece_end(" abcd", 3), (3, false), "a piece is never empty");
        assert_eq!(word_end("abcd ef", 2), 4);
        assert_eq!(word_end("abcdef", 2), 6);
    }

    #[test]
    fn known_ids_are_accepted() {
        let tokenizer = tokenizer(None);
        assert_eq!(tokenizer.validate_ids(vec![4, 5, 9], false).unwrap(), [4, 5, 9]);
        assert_eq!(tokenizer.validate_ids(vec![4, 10], false), Err(TextError::UnknownToken { id: 10, vocabulary: 10 }));
        assert_eq!(tokenizer.validate_ids(vec![], false), Err(TextError::Empty));
        assert_eq!(tokenizer.validate_ids(vec![4; 7], true).unwrap(), [4; 6]);
        assert!(tokenizer.validate_ids(vec![4; 7], false).is_err());
    }

    #[test]
    fn invalid_tokenizer_file_is_reported() {
        for json in ["", "{}", "[1]", "{\"model\": {\"type\": \"Wishes\"}}"] {
            assert!(matches!(Tokenizer::new(json.as_bytes(), None), Err(TokenizerError::Unreadable(_))), "{json}");
        }
        let none = Tokenizer::new(JSON.as_bytes(), Some(2)).unwrap_err();
        assert_eq!(none, TokenizerError::NoRoom { max_tokens: 2, special: 2 });
    }
}
