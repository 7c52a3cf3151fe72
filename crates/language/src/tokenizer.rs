//! From text to token ids, as the model's `tokenizer.json` says.

use std::borrow::Cow;

use caudal_types::{ErrorKind, Explain};
use tokenizers::{PostProcessor, TruncationDirection};

/// The ids of one text in the order in which the model takes them, special tokens included.
pub type Tokens = Vec<u32>;

/// Bytes of a text that are looked at for each token the model takes: ordinary text has four or five.
const BYTES_PER_TOKEN: usize = 64;

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

/// How much longer a text is than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// So many tokens.
    #[error("{0} tokens")]
    Tokens(usize),
    /// So many bytes that it was not even tokenized.
    #[error("{0} bytes")]
    Bytes(usize),
}

/// Why a text cannot be given to the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// There is nothing to make a vector of.
    #[error("it is empty")]
    Empty,
    /// More than the model takes, and nobody said that it may be cut.
    #[error("it has {has}, and the model takes {max_tokens} tokens")]
    TooLong {
        /// What it has.
        has: TooLong,
        /// Most tokens.
        max_tokens: usize,
    },
    /// An id that stands for nothing.
    #[error("the token {id} is not in the model's vocabulary of {vocabulary}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// One more than the largest id.
        vocabulary: u32,
    },
    /// The library does not know what to do with it.
    #[error("it cannot be tokenized: {0}")]
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
            Self::TooLong { .. } => "send it in pieces, or let it be cut: {\"truncate\": true}",
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

    /// Most tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The tokens of `text`. What is too long is cut at its end if it may be.
    #[caudal_observe::profile("tokenize")]
    pub fn encode(&self, text: &str, may_cut: bool) -> Result<Tokens, TextError> {
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        let failed = |error: tokenizers::Error| TextError::Untokenizable(error.to_string());
        let mut encoding = self.inner.encode_fast(self.looked_at(text, may_cut)?, false).map_err(failed)?;
        let tokens = encoding.get_ids().len() + self.special;
        if tokens > self.max_tokens {
            self.refuse(TooLong::Tokens(tokens), may_cut)?;
            encoding.truncate(self.max_tokens - self.special, 0, TruncationDirection::Right);
            encoding.take_overflowing();
        }
        let whole = self.inner.post_process(encoding, None, true).map_err(failed)?;
        match whole.get_ids() {
            [] => Err(TextError::Empty),
            ids => Ok(ids.to_vec()),
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

    /// The part of `text` that is tokenized: nobody's tokens are so long that the model would take what lies behind,
    /// and megabytes would keep a thread for seconds.
    fn looked_at<'a>(&self, text: &'a str, may_cut: bool) -> Result<&'a str, TextError> {
        let most = self.max_tokens.saturating_mul(BYTES_PER_TOKEN);
        if text.len() <= most {
            return Ok(text);
        }
        self.refuse(TooLong::Bytes(text.len()), may_cut)?;
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end));
        Ok(&text[..end.unwrap_or(0)])
    }

    fn refuse(&self, has: TooLong, may_cut: bool) -> Result<(), TextError> {
        if may_cut { Ok(()) } else { Err(TextError::TooLong { has, max_tokens: self.max_tokens }) }
    }
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
        let endless = "ä".repeat(1 << 20);
        assert_eq!(tokenizer(None).encode(&endless, false), refused(TooLong::Bytes(2 << 20)));
        assert_eq!(tokenizer(None).encode(&endless, true).unwrap(), [1, 3, 2]);
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
