//! The likeliest classes of a whole picture.

/// A class, and how likely it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likely {
    /// Which class.
    pub class_id: usize,
    /// How likely, 0 to 1.
    pub confidence: f32,
}

/// What makes likelihoods of a network's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// One of the classes it is: the numbers are logits, or logarithms of probabilities.
    Softmax,
    /// Each class for itself: the numbers are logits.
    Sigmoid,
    /// Nothing: the numbers are likelihoods.
    None,
}

impl Activation {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Sigmoid => "sigmoid",
            Self::None => "none",
        }
    }

    /// Makes likelihoods of `scores`, one for each class.
    pub fn apply(self, scores: &[f32]) -> Vec<f32> {
        match self {
            Self::None => scores.to_vec(),
            Self::Sigmoid => scores.iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect(),
            Self::Softmax => {
                let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let raised: Vec<f32> = scores.iter().map(|score| (score - highest).exp()).collect();
                let sum: f32 = raised.iter().sum();
                raised.into_iter().map(|score| score / sum).collect()
            }
        }
    }
}

/// The classes that are at least `conf` likely, likeliest first, and how many had no likelihood: a number that is none, or
/// outside 0 to 1.
pub fn likeliest(scores: &[f32], activation: Activation, conf: f32) -> (Vec<Likely>, usize) {
    let likelihoods = activation.apply(scores);
    let each = likelihoods.iter().enumerate();
    let mut all: Vec<Likely> =
        each.filter_map(|(class_id, score)| Some(Likely { class_id, confidence: sound_confidence(*score)? })).collect();
    let dropped = likelihoods.len() - all.len();
    all.retain(|class| class.confidence >= conf);
    all.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    (all, dropped)
}

/// Rounding in 8 or 16 bits may give this much more than 1, or less than 0.
const ROUNDING: f32 = 0.01;

/// `score` as a confidence between 0 and 1, if it can be one.
pub(crate) fn sound_confidence(score: f32) -> Option<f32> {
    (-ROUNDING..=1.0 + ROUNDING).contains(&score).then(|| score.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scores: &[f32], activation: Activation, conf: f32, expected: &[(usize, f32)]) {
        let (found, _) = likeliest(scores, activation, conf);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, (class_id, confidence)) in found.iter().zip(expected) {
            assert!(found.class_id == *class_id && (found.confidence - confidence).abs() < 1e-4, "{found:?}");
        }
    }

    #[test]
    fn likelihoods_are_made_as_the_model_wants_it() {
        check(&[0.2, 0.7, 0.1], Activation::None, 0.15, &[(1, 0.7), (0, 0.2)]);
        check(&[2f32.ln() + 50.0, 50.0, 50.0], Activation::Softmax, 0.3, &[(0, 0.5)]);
        check(&[0.5, 0.9], Activation::Softmax, 0.5, &[(1, 0.5987)]);
        check(&[0.25f32.ln(), 0.75f32.ln()], Activation::Softmax, 0.0, &[(1, 0.75), (0, 0.25)]);
        check(&[0.0, 3f32.ln(), 3f32.ln()], Activation::Sigmoid, 0.6, &[(1, 0.75), (2, 0.75)]);
        check(&[], Activation::Softmax, 0.0, &[]);
    }

    #[test]
    fn probabilities_whose_steps_do_not_add_up_to_one_stay() {
        check(&[252.0 / 255.0, 2.0 / 255.0, 0.0], Activation::None, 0.01, &[(0, 252.0 / 255.0)]);
    }

    #[test]
    fn score_that_is_no_likelihood_is_dropped() {
        check(&[f32::NAN, 1.0], Activation::Softmax, 0.0, &[]);
        check(&[f32::NAN, 0.4, f32::INFINITY, 7.0, -3.0, 1.004], Activation::None, 0.0, &[(5, 1.0), (1, 0.4)]);
        check(&[f32::NEG_INFINITY, 0.0], Activation::Softmax, 0.5, &[(1, 1.0)]);
        assert_eq!(likeliest(&[f32::NAN, 0.4, 46.0], Activation::None, 0.9), (Vec::new(), 2));
    }
}
