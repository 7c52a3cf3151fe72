//! The likeliest classes of a whole picture.

/// A class, and how likely it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likely {
    /// Which class.
    pub class_id: usize,
    /// How likely, 0 to 1.
    pub confidence: f32,
}

/// The `most` likeliest classes of those that are at least `conf` likely, likeliest first.
///
/// Networks give probabilities or the logits before them. Numbers that lie between 0 and 1 and add up to 1 are
/// probabilities; all others become such by softmax.
pub fn likeliest(scores: &[f32], most: usize, conf: f32) -> Vec<Likely> {
    let mut all: Vec<Likely> = probabilities(scores)
        .into_iter()
        .enumerate()
        .map(|(class_id, confidence)| Likely { class_id, confidence })
        .filter(|class| class.confidence >= conf)
        .collect();
    all.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    all.truncate(most);
    all
}

fn probabilities(scores: &[f32]) -> Vec<f32> {
    let sum: f32 = scores.iter().sum();
    if (sum - 1.0).abs() < 1e-3 && scores.iter().all(|score| (0.0..=1.0).contains(score)) {
        return scores.to_vec();
    }
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let raised: Vec<f32> = scores.iter().map(|score| (score - highest).exp()).collect();
    let sum: f32 = raised.iter().sum();
    raised.into_iter().map(|score| score / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scores: &[f32], most: usize, conf: f32, expected: &[(usize, f32)]) {
        let found = likeliest(scores, most, conf);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, (class_id, confidence)) in found.iter().zip(expected) {
            assert!(found.class_id == *class_id && (found.confidence - confidence).abs() < 1e-4, "{found:?}");
        }
    }

    #[test]
    fn probabilities_stay_and_logits_become_such() {
        check(&[0.2, 0.7, 0.1], 2, 0.0, &[(1, 0.7), (0, 0.2)]);
        check(&[2f32.ln() + 50.0, 50.0, 50.0], 3, 0.3, &[(0, 0.5)]);
        check(&[0.5, 0.9], 1, 0.0, &[(1, 0.5987)]);
        check(&[], 5, 0.0, &[]);
    }

    #[test]
    fn what_is_no_number_is_no_class() {
        check(&[f32::NAN, 1.0], 5, 0.0, &[]);
    }
}
