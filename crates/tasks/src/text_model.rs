//! Models that make vectors of texts: which of their inputs is which, how a text becomes tokens and a vector.

use std::sync::Arc;

use caudal_engine::{
    ModelSpec, TensorSpec,
    repository::{self as settings, ModelSettings},
};
use caudal_language::{EmbeddingHead, Pooling, Tokenizer};
use caudal_types::{DType, Shape};

/// A model that makes vectors of texts.
#[derive(Debug)]
pub struct TextModel {
    /// From text to tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// From the model's output to a vector.
    pub head: EmbeddingHead,
    /// Whether texts that are too long are cut where a request does not say.
    pub truncate: bool,
    /// Whether requests may bring token ids.
    pub allow_token_ids: bool,
    pub(crate) inputs: TextInputs,
    /// The output that is read.
    pub(crate) output: usize,
}

/// What an input of a text encoder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextInput {
    /// The tokens.
    Ids,
    /// 1 for each token, 0 for padding.
    Mask,
    /// Which of two texts a token belongs to: the first.
    Kinds,
}

/// The inputs of a text encoder, in the model's order; all are `[texts, tokens]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextInputs {
    pub(crate) each: Arc<[TextInput]>,
    /// How many tokens a text has, where that is fixed.
    length: Option<usize>,
}

impl TextInputs {
    /// The inputs that `spec` names, if they are a text encoder's.
    pub(crate) fn of(spec: &ModelSpec) -> Option<Self> {
        let kind = |input: &TensorSpec| match input.name.as_str() {
            _ if input.dtype != DType::I64 || input.dims.len() != 2 => None,
            "input_ids" => Some(TextInput::Ids),
            "attention_mask" => Some(TextInput::Mask),
            "token_type_ids" => Some(TextInput::Kinds),
            _ => None,
        };
        let each: Arc<[_]> = spec.inputs.iter().map(kind).collect::<Option<_>>()?;
        let whole = each.contains(&TextInput::Ids) && each.contains(&TextInput::Mask);
        let length = spec.inputs.first()?.dims[1].fixed_length();
        whole.then_some(Self { each, length })
    }

    /// The shape of each input for `rows` texts, the longest of which has `tokens` tokens.
    pub(crate) fn shapes(&self, rows: usize, tokens: usize) -> Vec<Shape> {
        vec![vec![rows, self.length(tokens)]; self.each.len()]
    }

    /// How long a text of `tokens` tokens is in a run: where the file has fixed a length, all have that one.
    pub(crate) fn length(&self, tokens: usize) -> usize {
        self.length.unwrap_or(tokens)
    }

    /// Which input holds the mask.
    pub(crate) fn mask(&self) -> Option<usize> {
        self.each.iter().position(|input| *input == TextInput::Mask)
    }
}

/// A text encoder before it has run.
#[derive(Debug)]
pub(crate) struct TextCandidate {
    pub(crate) inputs: TextInputs,
    pub(crate) tokenizer: Arc<Tokenizer>,
}

impl TextCandidate {
    /// The text encoder that `spec` describes, if it is one: by its settings, or by its inputs, its outputs and the
    /// tokenizer beside it, which `read` reads.
    pub(crate) fn new<E>(
        spec: &ModelSpec,
        settings: &ModelSettings,
        read: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
        refuse: impl Fn(String) -> E,
    ) -> Result<Option<Self>, E> {
        let said = match (settings.kind.as_deref(), &settings.family) {
            (Some("embed"), _) => true,
            (None, None) => false,
            _ => return Ok(None),
        };
        let inputs = match TextInputs::of(spec) {
            // Scores of classes or of words are no vectors that stand for a text.
            Some(inputs) if said || !spec.outputs.iter().any(|output| output.name.contains("logits")) => inputs,
            None if said => {
                let words = "it takes no texts: inputs input_ids and attention_mask, perhaps token_type_ids, INT64 [texts, tokens]";
                return Err(refuse(words.to_owned()));
            }
            _ => return Ok(None),
        };
        let Some(json) = read()? else {
            let words = "there is no tokenizer.json beside its file or in its folder; copy the one it was trained with";
            return if said { Err(refuse(words.to_owned())) } else { Ok(None) };
        };
        let most = settings.embedding.max_tokens.or(inputs.length);
        if let Some(length) = inputs.length.filter(|length| most.is_some_and(|most| most > *length)) {
            return Err(refuse(format!("embedding.max_tokens is more than the {length} tokens that its file takes")));
        }
        let tokenizer = Tokenizer::new(&json, most).map_err(|error| refuse(error.to_string()))?;
        Ok(Some(Self { inputs, tokenizer: Arc::new(tokenizer) }))
    }

    /// The model, whose outputs had `shapes` for one text.
    pub(crate) fn model(
        self,
        spec: &ModelSpec,
        settings: &ModelSettings,
        shapes: Option<&[Shape]>,
    ) -> Result<TextModel, String> {
        let shapes = shapes.ok_or("its warm-up gave no output to recognise it by")?;
        // Exports of sentence encoders give the tokens' vectors too; BERT's `pooler_output` stands for nothing.
        let output = spec.outputs.iter().position(|output| output.name == "sentence_embedding").unwrap_or(0);
        let (Some(tensor), Some(shape)) = (spec.outputs.get(output), shapes.get(output)) else {
            return Err("it has no output".to_owned());
        };
        let said = settings.embedding.pooling;
        let (pooling, width) = match shape[..] {
            _ if tensor.dtype != DType::F32 => return Err(format!("its output {tensor} is not FP32")),
            [1, _, width] => (Some(said.map_or(Pooling::Mean, pooling)), width),
            [1, width] if said.is_none() => (None, width),
            [1, _] => return Err(format!("its output {tensor} is one vector a text; leave embedding.pooling out")),
            _ => return Err(format!("its output {tensor} is neither a vector a token nor a vector a text")),
        };
        Ok(TextModel {
            tokenizer: self.tokenizer,
            head: EmbeddingHead { pooling, normalize: settings.embedding.normalize.unwrap_or(true), width },
            truncate: settings.embedding.truncate,
            allow_token_ids: settings.embedding.allow_token_ids,
            inputs: self.inputs,
            output,
        })
    }
}

fn pooling(said: settings::Pooling) -> Pooling {
    match said {
        settings::Pooling::Mean => Pooling::Mean,
        settings::Pooling::Cls => Pooling::Cls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_engine::Dim;

    fn inputs(names: &[&str], dtype: DType, length: Dim) -> Option<TextInputs> {
        let input = |name: &&str| TensorSpec {
            name: (*name).to_owned(),
            dtype,
            dims: vec![Dim::Free("batch".to_owned()), length.clone()],
        };
        TextInputs::of(&ModelSpec { inputs: names.iter().map(input).collect(), ..Default::default() })
    }

    #[test]
    fn a_text_encoder_is_known_by_its_inputs() {
        let any = || Dim::Free("length".to_owned());
        let two = inputs(&["attention_mask", "input_ids"], DType::I64, any()).unwrap();
        assert_eq!((&two.each[..], two.mask()), (&[TextInput::Mask, TextInput::Ids][..], Some(0)));
        assert_eq!(two.shapes(3, 7), [[3, 7], [3, 7]]);
        assert_eq!(inputs(&["input_ids"], DType::I64, any()), None);
        assert_eq!(inputs(&["input_ids", "attention_mask"], DType::F32, any()), None);
        assert_eq!(inputs(&["input_ids", "attention_mask", "pixel_values"], DType::I64, any()), None);
    }

    #[test]
    fn where_the_length_is_fixed_every_text_has_it() {
        let fixed = inputs(&["input_ids", "attention_mask"], DType::I64, Dim::Fixed(128)).unwrap();
        assert_eq!((fixed.length(5), fixed.shapes(2, 5)), (128, vec![vec![2, 128]; 2]));
    }
}
