//! Sampling of requests for traces.

use caudal_types::TraceId;

use crate::TraceParent;

/// Decides if a request is sampled (`OTEL_TRACES_SAMPLER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// True if the decision of a parent span is adopted.
    parent_based: bool,
    /// Sampler of other requests.
    root: RootSampler,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RootSampler {
    AlwaysOn,
    AlwaysOff,
    /// Traces whose id, as the number of its last 63 bits, is below this.
    TraceIdBelow(u64),
}

/// Number of possible values of the last 63 bits of a trace id.
const TRACE_ID_RANGE: f64 = (1u64 << 63) as f64;
const TRACE_ID_MASK: u64 = u64::MAX >> 1;

impl Sampler {
    /// OpenTelemetry's names of the supported samplers; remote samplers are not supported.
    pub const ALL_NAMES: [&'static str; 6] = [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ];

    /// The sampler called `name`, one of [`Sampler::ALL_NAMES`]; `ratio` is the share of sampled requests, from 0 to 1.
    pub fn from_name(name: &str, ratio: f64) -> Option<Self> {
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => RootSampler::AlwaysOn,
            "always_off" => RootSampler::AlwaysOff,
            "traceidratio" if ratio >= 1.0 => RootSampler::AlwaysOn,
            "traceidratio" => RootSampler::TraceIdBelow((ratio * TRACE_ID_RANGE) as u64),
            _ => return None,
        };
        Some(Self { parent_based, root })
    }

    /// The trace id of a request if it is sampled. Without a parent, a trace starts here only if `may_start` is set.
    ///
    /// Services with the same ratio sample the same traces.
    pub(crate) fn sample_trace(&self, parent: Option<&TraceParent>, may_start: bool) -> Option<TraceId> {
        let Some(parent) = parent else {
            return may_start.then(|| self.sample_root()).flatten();
        };
        let sampled = match (self.parent_based, self.root) {
            (true, _) => parent.sampled,
            (false, RootSampler::AlwaysOn) => true,
            (false, RootSampler::AlwaysOff) => false,
            (false, RootSampler::TraceIdBelow(bound)) => trace_id_low_bits(parent.trace) < bound,
        };
        sampled.then_some(parent.trace)
    }

    fn sample_root(&self) -> Option<TraceId> {
        match self.root {
            RootSampler::AlwaysOn => TraceId::new(rand::random::<u128>().to_be_bytes()),
            RootSampler::AlwaysOff => None,
            // The half that decides is drawn first: an unsampled request needs no other.
            RootSampler::TraceIdBelow(bound) => {
                let last: u64 = rand::random();
                let drawn = || u128::from(rand::random::<u64>()) << 64 | u128::from(last);
                (last & TRACE_ID_MASK < bound).then(drawn).and_then(|drawn| TraceId::new(drawn.to_be_bytes()))
            }
        }
    }
}

/// The last 63 bits of a trace id, the part that is random in all services.
fn trace_id_low_bits(trace: TraceId) -> u64 {
    trace.bytes()[8..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)) & TRACE_ID_MASK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SpanId;

    fn parent(sampled: bool) -> TraceParent {
        let (trace, span) = (TraceId::new([7; 16]).unwrap(), SpanId::new([9; 8]).unwrap());
        TraceParent { trace, span, sampled, random: false }
    }

    fn check(name: &str, ratio: f64, may_start: bool, parent_sampled: bool, parent_not_sampled: bool) {
        let sampler = Sampler::from_name(name, ratio).unwrap();
        let sampled = |parent: Option<TraceParent>| sampler.sample_trace(parent.as_ref(), true).is_some();
        assert_eq!(
            (sampled(None), sampled(Some(parent(true))), sampled(Some(parent(false)))),
            (may_start, parent_sampled, parent_not_sampled),
            "{name}"
        );
    }

    #[test]
    fn sampler_follows_the_parent_if_parent_based() {
        check("always_on", 1.0, true, true, true);
        check("always_off", 1.0, false, false, false);
        check("traceidratio", 1.0, true, true, true);
        check("traceidratio", 0.0, false, false, false);
        check("parentbased_always_on", 1.0, true, true, false);
        check("parentbased_always_off", 1.0, false, true, false);
        check("parentbased_traceidratio", 0.0, false, true, false);
        assert_eq!(Sampler::from_name("jaeger_remote", 1.0), None);
        for name in Sampler::ALL_NAMES {
            assert!(Sampler::from_name(name, 0.5).is_some(), "{name}");
        }
    }

    #[test]
    fn sample_trace_keeps_the_id_of_the_parent() {
        let sampler = Sampler::from_name("always_on", 1.0).unwrap();
        assert_eq!(sampler.sample_trace(Some(&parent(false)), false), Some(parent(false).trace));
        assert_eq!(sampler.sample_trace(None, false), None);
    }

    #[test]
    fn ratio_sampler_samples_its_share() {
        let sampler = Sampler::from_name("traceidratio", 0.25).unwrap();
        let sampled = (0..100_000).filter(|_| sampler.sample_trace(None, true).is_some()).count();
        // Nine standard deviations.
        assert!((23_750..=26_250).contains(&sampled), "{sampled}");
        // Another service with the same ratio decides alike.
        let elsewhere = Sampler::from_name("traceidratio", 0.25).unwrap();
        let trace = (0..1000).find_map(|_| sampler.sample_trace(None, true)).unwrap();
        assert!(elsewhere.sample_trace(Some(&TraceParent { trace, ..parent(false) }), true).is_some());
    }
}
