//! From what a model gives to the vector that stands for a text.

/// How one vector is made of those that a model gives for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token.
    Cls,
}

/// What happens to a model's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How the vectors of the tokens become one; none where the model gives one a text.
    pub pooling: Option<Pooling>,
    /// Whether vectors are brought to length 1.
    pub normalize: bool,
    /// Values of a vector.
    pub width: usize,
}

impl Head {
    /// The vector of a text of `tokens` tokens, of which the model gave `values`: one vector after the other, those of
    /// padding behind those of the text. Cut to its first `dimensions` values, as Matryoshka models allow.
    ///
    /// # Panics
    /// When there are fewer values than tokens have.
    #[caudal_observe::profile("pool")]
    pub fn read(&self, values: &[f32], tokens: usize, dimensions: usize) -> Vec<f32> {
        let dimensions = dimensions.min(self.width);
        let mut vector = match self.pooling {
            Some(Pooling::Mean) => mean(&values[..tokens * self.width], self.width, dimensions),
            Some(Pooling::Cls) | None => values[..dimensions].to_vec(),
        };
        if self.normalize {
            normalize(&mut vector);
        }
        vector
    }
}

/// The mean of the first `dimensions` values of each vector of `width` values.
fn mean(values: &[f32], width: usize, dimensions: usize) -> Vec<f32> {
    let mut sum = vec![0.0; dimensions];
    let vectors = values.chunks_exact(width);
    let share = 1.0 / vectors.len().max(1) as f32;
    for vector in vectors {
        sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
    }
    sum.iter_mut().for_each(|sum| *sum *= share);
    sum
}

/// Brings a vector to length 1; one of zeros stays what it is.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(pooling: Option<Pooling>, normalize: bool) -> Head {
        Head { pooling, normalize, width: 2 }
    }

    #[test]
    fn tokens_become_one_vector_and_padding_counts_for_nothing() {
        let values = [1.0, 2.0, 3.0, 6.0, 99.0, 99.0];
        assert_eq!(head(Some(Pooling::Mean), false).read(&values, 2, 2), [2.0, 4.0]);
        assert_eq!(head(Some(Pooling::Cls), false).read(&values, 2, 2), [1.0, 2.0]);
        assert_eq!(head(None, false).read(&values[4..], 2, 2), [99.0, 99.0]);
    }

    #[test]
    fn what_is_cut_is_brought_to_length_one_afterwards() {
        assert_eq!(head(None, true).read(&[3.0, 4.0], 1, 2), [0.6, 0.8]);
        assert_eq!(head(None, true).read(&[3.0, 4.0], 1, 1), [1.0]);
        assert_eq!(head(None, true).read(&[0.0, 0.0], 1, 2), [0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn every_vector_has_length_one(values in proptest::collection::vec(-1e3f32..1e3, 2..40), dimensions in 1usize..3) {
            prop_assume!(values[0].abs() > 1e-3);
            let tokens = values.len() / 2;
            let vector = head(Some(Pooling::Cls), true).read(&values, tokens, dimensions);
            let length: f32 = vector.iter().map(|value| value * value).sum();
            prop_assert!((length - 1.0).abs() < 1e-5);
        }
    }
}
