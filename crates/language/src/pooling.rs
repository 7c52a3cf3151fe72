//! Pooling: converts a model's output to the embedding of a text.

/// The way to combine the vectors of all tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The vector of the first token.
    Cls,
}

/// Conversion of a model's output to an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingHead {
    /// The pooling of token vectors; none if the model gives one vector per text.
    pub pooling: Option<Pooling>,
    /// Whether vectors are normalized to length 1.
    pub normalize: bool,
    /// Number of values of a vector.
    pub width: usize,
}

impl EmbeddingHead {
    /// The embedding of a text of `tokens` tokens, for which the model gave `values`: one vector after the other, those
    /// of padding last. Truncated to its first `dimensions` values, as Matryoshka models allow.
    ///
    /// # Panics
    /// If there are fewer values than the tokens have.
    #[caudal_observe::profile("pool")]
    pub fn pool_tokens(&self, values: &[f32], tokens: usize, dimensions: usize) -> Vec<f32> {
        let dimensions = dimensions.min(self.width);
        let mut vector = match self.pooling {
            Some(Pooling::Mean) => mean_vector(&values[..tokens * self.width], self.width, dimensions),
            Some(Pooling::Cls) | None => values[..dimensions].to_vec(),
        };
        if self.normalize {
            normalize_vector(&mut vector);
        }
        vector
    }
}

/// The mean of the first `dimensions` values of each vector of `width` values.
fn mean_vector(values: &[f32], width: usize, dimensions: usize) -> Vec<f32> {
    let mut sum = vec![0.0; dimensions];
    let vectors = values.chunks_exact(width);
    let share = 1.0 / vectors.len().max(1) as f32;
    for vector in vectors {
        sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
    }
    sum.iter_mut().for_each(|sum| *sum *= share);
    sum
}

/// Normalizes a vector to length 1; a zero vector stays zero.
fn normalize_vector(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(pooling: Option<Pooling>, normalize: bool) -> EmbeddingHead {
        EmbeddingHead { pooling, normalize, width: 2 }
    }

    #[test]
    fn pooling_ignores_padding() {
        let values = [1.0, 2.0, 3.0, 6.0, 99.0, 99.0];
        assert_eq!(head(Some(Pooling::Mean), false).pool_tokens(&values, 2, 2), [2.0, 4.0]);
        assert_eq!(head(Some(Pooling::Cls), false).pool_tokens(&values, 2, 2), [1.0, 2.0]);
        assert_eq!(head(None, false).pool_tokens(&values[4..], 2, 2), [99.0, 99.0]);
    }

    #[test]
    fn truncated_vector_is_normalized() {
        assert_eq!(head(None, true).pool_tokens(&[3.0, 4.0], 1, 2), [0.6, 0.8]);
        assert_eq!(head(None, true).pool_tokens(&[3.0, 4.0], 1, 1), [1.0]);
        assert_eq!(head(None, true).pool_tokens(&[0.0, 0.0], 1, 2), [0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn normalized_vectors_have_length_one(values in proptest::collection::vec(-1e3f32..1e3, 2..40), dimensions in 1usize..3) {
            prop_assume!(values[0].abs() > 1e-3);
            let tokens = values.len() / 2;
            let vector = head(Some(Pooling::Cls), true).pool_tokens(&values, tokens, dimensions);
            let length: f32 = vector.iter().map(|value| value * value).sum();
            prop_assert!((length - 1.0).abs() < 1e-5);
        }
    }
}
