//! The length of an answer, in tokens: as the settings say, else a share of what the budget leaves.

use caudal_flow::Limits;

use super::Price;

/// Tokens of an answer where neither the settings nor a budget limit it.
const MOST: u64 = 4_096;
/// An answer gets half of what is left, so that other steps of the run have something to reserve; but at least so much.
const SHARE: u64 = 256;
/// Fewer tokens are no answer: where the budget leaves less, the question is not sent.
const LEAST: u64 = 16;

/// Tokens that an answer may have: `said` by the settings, else a share of what is left beside `tokens_in` read ones.
pub(super) fn answer_tokens(said: Option<u64>, left: Limits, tokens_in: u64, price: Price) -> u64 {
    if let Some(said) = said {
        return said;
    }
    let by_tokens = left.tokens.map(|tokens| tokens.saturating_sub(tokens_in));
    let by_cost = left.cost.map(|cost| price.affordable(tokens_in, cost));
    let Some(left) = [by_tokens, by_cost].into_iter().flatten().min() else { return MOST };
    (left / 2).max(SHARE).min(left).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(said: Option<u64>, tokens: Option<u64>, cost: Option<u64>) -> u64 {
        let left = Limits { tokens, cost, steps: None };
        answer_tokens(said, left, 100, Price::per_million(1.0, 2.0))
    }

    #[test]
    fn answer_has_the_length_that_is_said() {
        assert_eq!(tokens(Some(9), Some(1), None), 9);
        assert_eq!(tokens(None, None, None), 4_096);
    }

    #[test]
    fn answer_gets_a_share_of_what_is_left_beside_the_question() {
        for (left, expected) in [(50_000, 4_096), (2_100, 1_000), (400, 256), (220, 120), (110, 16), (0, 16)] {
            assert_eq!(tokens(None, Some(left), None), expected, "{left}");
        }
    }

    #[test]
    fn answer_costs_no_more_than_is_left() {
        // The question costs 100 of these, and a token of the answer 2.
        for (left, expected) in [(1_100, 256), (5_100, 1_250), (300, 100), (100, 16)] {
            assert_eq!(tokens(None, None, Some(left)), expected, "{left}");
        }
        let free = Limits { cost: Some(5), ..Limits::default() };
        assert_eq!(answer_tokens(None, free, 100, Price::default()), 4_096, "a model without a price costs nothing");
    }
}
