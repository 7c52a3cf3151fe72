//! Which requests are told of.

use caudal_types::TraceId;

use crate::Parent;

/// How it is decided whether a request is told of (`OTEL_TRACES_SAMPLER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Whether the caller's decision holds, where there is a caller that has made one.
    parent_based: bool,
    /// Who decides otherwise.
    root: Root,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    On,
    Off,
    /// Traces whose name, its last 63 bits taken for a number, is below this.
    Below(u64),
}

/// What trace names are drawn from, as a number.
const ALL: f64 = (1u64 << 63) as f64;
const MASK: u64 = u64::MAX >> 1;

impl Sampler {
    /// The names by which OpenTelemetry knows samplers, those aside that ask somebody else.
    pub const NAMES: [&'static str; 6] = [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ];

    /// The sampler called `name`, one of [`Sampler::NAMES`]; those with a ratio tell of so many requests, from 0 to 1.
    pub fn named(name: &str, ratio: f64) -> Option<Self> {
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Root::On,
            "always_off" => Root::Off,
            "traceidratio" if ratio >= 1.0 => Root::On,
            "traceidratio" => Root::Below((ratio * ALL) as u64),
            _ => return None,
        };
        Some(Self { parent_based, root })
    }

    /// The trace of a request that is told of; none if it is not. A request whose trace would begin here, with `begins`
    /// unset, is not told of.
    ///
    /// The same trace is told of by all services with the same ratio.
    pub(crate) fn trace(&self, parent: Option<&Parent>, begins: bool) -> Option<TraceId> {
        let Some(parent) = parent else {
            return begins.then(|| self.begin()).flatten();
        };
        let sampled = match (self.parent_based, self.root) {
            (true, _) => parent.sampled,
            (false, Root::On) => true,
            (false, Root::Off) => false,
            (false, Root::Below(bound)) => number(parent.trace) < bound,
        };
        sampled.then_some(parent.trace)
    }

    fn begin(&self) -> Option<TraceId> {
        match self.root {
            Root::On => TraceId::new(rand::random::<u128>().to_be_bytes()),
            Root::Off => None,
            // The half that decides is drawn first: most draw no other.
            Root::Below(bound) => {
                let last: u64 = rand::random();
                let drawn = || u128::from(rand::random::<u64>()) << 64 | u128::from(last);
                (last & MASK < bound).then(drawn).and_then(|drawn| TraceId::new(drawn.to_be_bytes()))
            }
        }
    }
}

/// The last 63 bits of a trace's name: the part that is random in all services.
fn number(trace: TraceId) -> u64 {
    trace.bytes()[8..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)) & MASK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SpanId;

    fn parent(sampled: bool) -> Parent {
        let (trace, span) = (TraceId::new([7; 16]).unwrap(), SpanId::new([9; 8]).unwrap());
        Parent { trace, span, sampled, random: false }
    }

    fn check(name: &str, ratio: f64, begins: bool, caller_records: bool, caller_does_not: bool) {
        let sampler = Sampler::named(name, ratio).unwrap();
        let told = |parent: Option<Parent>| sampler.trace(parent.as_ref(), true).is_some();
        assert_eq!(
            (told(None), told(Some(parent(true))), told(Some(parent(false)))),
            (begins, caller_records, caller_does_not),
            "{name}"
        );
    }

    #[test]
    fn the_callers_decision_holds_where_the_sampler_says_so() {
        check("always_on", 1.0, true, true, true);
        check("always_off", 1.0, false, false, false);
        check("traceidratio", 1.0, true, true, true);
        check("traceidratio", 0.0, false, false, false);
        check("parentbased_always_on", 1.0, true, true, false);
        check("parentbased_always_off", 1.0, false, true, false);
        check("parentbased_traceidratio", 0.0, false, true, false);
        assert_eq!(Sampler::named("jaeger_remote", 1.0), None);
        for name in Sampler::NAMES {
            assert!(Sampler::named(name, 0.5).is_some(), "{name}");
        }
    }

    #[test]
    fn a_trace_that_goes_on_keeps_its_name_and_questions_begin_none() {
        let sampler = Sampler::named("always_on", 1.0).unwrap();
        assert_eq!(sampler.trace(Some(&parent(false)), false), Some(parent(false).trace));
        assert_eq!(sampler.trace(None, false), None);
    }

    #[test]
    fn a_ratio_tells_of_so_many() {
        let sampler = Sampler::named("traceidratio", 0.25).unwrap();
        let told = (0..100_000).filter(|_| sampler.trace(None, true).is_some()).count();
        // Nine standard deviations.
        assert!((23_750..=26_250).contains(&told), "{told}");
        // Who has drawn the name elsewhere decides alike.
        let elsewhere = Sampler::named("traceidratio", 0.25).unwrap();
        let trace = (0..1000).find_map(|_| sampler.trace(None, true)).unwrap();
        assert!(elsewhere.trace(Some(&Parent { trace, ..parent(false) }), true).is_some());
    }
}
