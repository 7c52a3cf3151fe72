//! Texts in, vectors out. The one place to read: tokens, parts, seats, runs, vectors.

use std::{cmp::Reverse, sync::Arc};

use caudal_batcher::{EntryRequest, Failure, Job, OutputRows, Policy, RowBlock};
use caudal_language::{EmbeddingHead, IncrementalEncoder, Tokenizer, Tokens};
use caudal_types::{Shape, Stage, Trace};
use futures_util::{StreamExt, future::try_join_all, stream};

use crate::{
    Call, Decoders, ServedModel, TaskError, TextModel,
    text_model::{TextInput, TextInputs},
};

/// One text, or its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// As people write it.
    Words(String),
    /// As the model's own tokenizer writes it, special tokens included.
    Tokens(Vec<u32>),
}

/// What a request wants of its texts.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmbedAsk {
    /// Values of each vector; all when none.
    pub dimensions: Option<usize>,
    /// Whether texts that are too long are cut; as the model's settings say when none.
    pub truncate: Option<bool>,
}

/// The answer to some texts.
#[derive(Debug)]
pub struct Embedded {
    /// A vector for each text, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that the model was given.
    pub tokens: usize,
}

/// Bytes of text that become tokens on the thread that brings them: some hundred microseconds.
const SMALL: usize = 1 << 10;
/// Bytes of text that a decode thread deals with before others have their turn.
const SLICE: usize = 64 << 10;

impl ServedModel {
    /// Whether a text would be given a seat now: if not, it need not even be read.
    pub fn check_embed(&self, call: &Call) -> Result<(), TaskError> {
        call.trace.set_model(&self.id);
        self.text_model()?;
        Ok(self.queue.check_admission(&EntryRequest {
            rows: 1,
            tokens: 1,
            bytes: 0,
            priority: call.priority,
            deadline: call.deadline,
        })?)
    }

    /// Makes a vector of each of `texts`.
    ///
    /// Many texts are run in parts of like lengths. A request keeps few of its parts in the queue at a time, so that a
    /// large one does not stand in the way of small ones.
    pub async fn embed(
        &self,
        decoders: &Decoders,
        texts: Vec<Text>,
        ask: EmbedAsk,
        call: &Call,
    ) -> Result<Embedded, TaskError> {
        let model = self.text_model()?;
        let width = model.head.width;
        let dimensions = ask.dimensions.unwrap_or(width);
        if !(1..=width).contains(&dimensions) {
            return Err(TaskError::Dimensions { asked: dimensions, width });
        }
        if !model.allow_token_ids && texts.iter().any(|text| matches!(text, Text::Tokens(_))) {
            return Err(TaskError::TokenIds(self.name.clone()));
        }
        let tokens = model.tokens(decoders, texts, ask.truncate.unwrap_or(model.truncate), call).await?;
        let (count, all) = (tokens.len(), tokens.iter().map(Vec::len).sum());
        let parts = Part::split(model, tokens, dimensions, &self.queue.policy());
        let Some(first) = parts.first() else { return Ok(Embedded { vectors: Vec::new(), tokens: 0 }) };

        let mut first = Some(self.queue.admit(first.request(call))?);
        let traces = call.trace.part(parts.len());
        traces.iter().for_each(|trace| trace.enter(Stage::Queue));
        let run = |(part, trace): (Part, &Trace)| {
            let seat = first.take().map_or_else(|| self.queue.admit_part(part.request(call)), Ok);
            let trace = trace.clone();
            async move { Ok::<_, TaskError>(seat?.submit(part, trace).await?) }
        };
        // One for each instance, and one that is ready when the first of them is done.
        let at_once = self.plan().instances + 1;
        let mut runs = stream::iter(parts.into_iter().zip(&*traces)).map(run).buffer_unordered(at_once);
        let mut vectors = vec![Vec::new(); count];
        while let Some(part) = runs.next().await {
            part?.into_iter().for_each(|(place, vector)| vectors[place] = vector);
        }
        Ok(Embedded { vectors, tokens: all })
    }
}

impl TextModel {
    /// The tokens of each of `texts`, made here if that is quickly done, else on decode threads.
    async fn tokens(
        &self,
        decoders: &Decoders,
        texts: Vec<Text>,
        may_cut: bool,
        call: &Call,
    ) -> Result<Vec<Tokens>, TaskError> {
        if texts.iter().map(Text::bytes).sum::<usize>() <= SMALL {
            call.trace.enter(Stage::Decode);
            return encode(&self.tokenizer, 0, texts, may_cut);
        }
        let slices = slices(texts);
        let traces = call.trace.part(slices.len());
        let each = slices.into_iter().zip(&*traces).map(|((from, texts), trace)| async move {
            let call = Call { trace: trace.clone(), ..*call };
            let tokenizer = Arc::clone(&self.tokenizer);
            let texts = match <[Text; 1]>::try_from(texts) {
                Ok([Text::Words(words)]) => return long(decoders, tokenizer, from, words, may_cut, &call).await,
                Ok([ids]) => vec![ids],
                Err(texts) => texts,
            };
            decoders.run(&call, Stage::Decode, move |_| encode(&tokenizer, from, texts, may_cut)).await?
        });
        Ok(try_join_all(each).await?.into_iter().flatten().collect())
    }
}

impl Text {
    fn bytes(&self) -> usize {
        match self {
            Self::Words(words) => words.len(),
            Self::Tokens(tokens) => size_of_val(&tokens[..]),
        }
    }
}

/// Cuts `texts` into slices that take about as long to tokenize, each with the place of its first.
fn slices(texts: Vec<Text>) -> Vec<(usize, Vec<Text>)> {
    let mut slices: Vec<(usize, Vec<Text>)> = Vec::new();
    let mut room = 0;
    for (place, text) in texts.into_iter().enumerate() {
        let bytes = text.bytes();
        match slices.last_mut() {
            Some((_, slice)) if bytes <= room => slice.push(text),
            _ => {
                room = SLICE;
                slices.push((place, vec![text]));
            }
        }
        room = room.saturating_sub(bytes);
    }
    slices
}

/// The tokens of one text that may be megabytes long. Between two of its pieces others have their turn on the decode threads,
/// and it is given up if nobody waits for it any more.
async fn long(
    decoders: &Decoders,
    tokenizer: Arc<Tokenizer>,
    index: usize,
    words: String,
    may_cut: bool,
    call: &Call,
) -> Result<Vec<Tokens>, TaskError> {
    let mut work = IncrementalEncoder::new(words, may_cut);
    loop {
        let tokenizer = Arc::clone(&tokenizer);
        let step = move |_: &mut _| (work.encode_next_piece(&tokenizer), work);
        let (tokens, rest) = decoders.run(call, Stage::Decode, step).await?;
        if let Some(tokens) = tokens.map_err(|error| TaskError::Text { index, error })? {
            return Ok(vec![tokens]);
        }
        work = rest;
    }
}

fn encode(tokenizer: &Tokenizer, from: usize, texts: Vec<Text>, may_cut: bool) -> Result<Vec<Tokens>, TaskError> {
    let encode = |(place, text)| {
        let tokens = match text {
            Text::Words(words) => tokenizer.encode(&words, may_cut),
            Text::Tokens(tokens) => tokenizer.validate_ids(tokens, may_cut),
        };
        tokens.map_err(|error| TaskError::Text { index: from + place, error })
    };
    texts.into_iter().enumerate().map(encode).collect()
}

/// Texts of one request that run together.
pub(crate) struct Part {
    /// The tokens of each, with its place among the request's texts.
    texts: Vec<(usize, Tokens)>,
    shapes: Vec<Shape>,
    inputs: TextInputs,
    head: EmbeddingHead,
    output: usize,
    dimensions: usize,
}

impl Part {
    /// Cuts the texts of a request into parts of like lengths, each no more than a run may have.
    fn split(model: &TextModel, tokens: Vec<Tokens>, dimensions: usize, policy: &Policy) -> Vec<Self> {
        let mut texts: Vec<(usize, Tokens)> = tokens.into_iter().enumerate().collect();
        texts.sort_by_key(|(_, tokens)| Reverse(tokens.len()));
        let mut groups: Vec<(RowBlock, Vec<(usize, Tokens)>)> = Vec::new();
        for text in texts {
            let own = RowBlock { rows: 1, length: model.inputs.length(text.1.len()) };
            let fits = |block: &RowBlock| {
                let rows = block.rows < policy.max_batch_size;
                rows && policy.ragged.is_some_and(|ragged| ragged.closed_by(*block, own).is_none())
            };
            match groups.last_mut() {
                Some((block, group)) if fits(block) => {
                    *block = block.joined_with(own);
                    group.push(text);
                }
                _ => groups.push((own, vec![text])),
            }
        }
        groups.into_iter().map(|(_, texts)| Self::new(model, texts, dimensions)).collect()
    }

    /// One part with `texts`, the longest of which comes first, each with its place in the request.
    pub(crate) fn new(model: &TextModel, texts: Vec<(usize, Tokens)>, dimensions: usize) -> Self {
        let longest = texts.first().map_or(0, |(_, tokens)| tokens.len());
        Self {
            shapes: model.inputs.shapes(texts.len(), longest),
            texts,
            inputs: model.inputs.clone(),
            head: model.head,
            output: model.output,
            dimensions,
        }
    }

    /// Tokens of all its texts.
    pub(crate) fn tokens(&self) -> usize {
        self.texts.iter().map(|(_, tokens)| tokens.len()).sum()
    }

    fn request(&self, call: &Call) -> EntryRequest {
        let tokens = self.tokens();
        EntryRequest {
            rows: self.texts.len(),
            tokens,
            bytes: tokens * size_of::<u32>(),
            priority: call.priority,
            deadline: call.deadline,
        }
    }
}

impl Job for Part {
    /// The vectors, each with its text's place.
    type Answer = Vec<(usize, Vec<f32>)>;

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn write_rows(&self, index: usize, rows: &mut [u8]) {
        let values: &mut [i64] = bytemuck::cast_slice_mut(rows);
        values.fill(0);
        let length = values.len() / self.texts.len();
        for (row, (_, tokens)) in values.chunks_exact_mut(length).zip(&self.texts) {
            let own = row.iter_mut().zip(tokens);
            match self.inputs.each[index] {
                TextInput::Ids => own.for_each(|(value, token)| *value = i64::from(*token)),
                TextInput::Mask => own.for_each(|(value, _)| *value = 1),
                TextInput::Kinds => {}
            }
        }
    }

    fn read_outputs(self, outputs: OutputRows<'_>) -> Result<Self::Answer, Failure> {
        let odd = || Failure::Failed("its output has not the shape it has shown before".to_owned());
        let (view, shape) = outputs.output(self.output).ok_or_else(odd)?;
        let values: &[f32] = bytemuck::try_cast_slice(view.bytes).map_err(|_| odd())?;
        let vectors =
            if self.head.pooling.is_some() { self.texts.first().map_or(0, |(_, tokens)| tokens.len()) } else { 1 };
        let row = values.len() / self.texts.len();
        // The first text is the longest.
        if shape.last() != Some(&self.head.width) || row < vectors * self.head.width {
            return Err(odd());
        }
        let read = |((place, tokens), values): ((usize, Tokens), _)| {
            (place, self.head.pool_tokens(values, tokens.len(), self.dimensions))
        };
        Ok(self.texts.into_iter().zip(values.chunks_exact(row)).map(read).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_keep_the_order_and_none_takes_long() {
        let texts = |bytes: &[usize]| bytes.iter().map(|bytes| Text::Words("x".repeat(*bytes))).collect();
        let cut = |bytes: &[usize]| -> Vec<(usize, usize)> {
            slices(texts(bytes)).into_iter().map(|(from, texts)| (from, texts.len())).collect()
        };
        assert_eq!(cut(&[10, 20, 30]), [(0, 3)]);
        assert_eq!(cut(&[SLICE, 1, SLICE - 1, 1]), [(0, 1), (1, 2), (3, 1)]);
        assert_eq!(cut(&[3 * SLICE, 1]), [(0, 1), (1, 1)]);
    }
}
