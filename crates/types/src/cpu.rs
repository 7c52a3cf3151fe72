//! One plan that shares the machine's cores among all who want them.

/// Cores this process may use: the smaller of its affinity mask and its cgroup quota (v1 or v2), never the
/// host's count. A fraction of a core counts as one.
pub fn available_cpus() -> usize {
    // The standard library reads sched_getaffinity and the cgroup's cpu.max or cpu.cfs_quota_us on Linux.
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many threads each part of the server gets.
///
/// All parts may want all cores, at different moments: the sum is larger than the machine on purpose, and
/// what runs at once stays bounded by the machine's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuPlan {
    /// Cores that are shared.
    pub cpus: usize,
    /// Threads of the async runtime: sockets, parsing, answers.
    pub io_threads: usize,
    /// Threads that decode and encode pictures.
    pub decode_threads: usize,
}

impl CpuPlan {
    /// The plan for `cpus` cores.
    pub fn for_cpus(cpus: usize) -> Self {
        let cpus = cpus.max(1);
        Self { cpus, io_threads: cpus.min(8), decode_threads: cpus }
    }

    /// How many instances of one model run at once and with how many threads each, where nobody said.
    ///
    /// One-thread instances waste nothing at the barriers between operators, so many narrow ones beat few
    /// wide ones (measured in `docs/performance.md`); past eight instances the batches they hold cost more
    /// memory than the barriers cost time.
    pub fn instances(&self, instances: Option<usize>, threads: Option<usize>) -> (usize, usize) {
        match (instances, threads) {
            (Some(instances), Some(threads)) => (instances.max(1), threads.max(1)),
            (Some(instances), None) => (instances.max(1), (self.cpus / instances.max(1)).max(1)),
            (None, Some(threads)) => ((self.cpus / threads.max(1)).clamp(1, 8), threads.max(1)),
            (None, None) => {
                let instances = self.cpus.min(8);
                (instances, self.cpus / instances)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_gets_one_narrow_instance_per_core() {
        assert_eq!(CpuPlan::for_cpus(2).instances(None, None), (2, 1));
        assert_eq!(CpuPlan::for_cpus(0).instances(None, None), (1, 1));
    }

    #[test]
    fn a_large_machine_gets_eight_wider_ones() {
        assert_eq!(CpuPlan::for_cpus(64).instances(None, None), (8, 8));
    }

    #[test]
    fn what_is_said_stands_and_the_rest_follows() {
        let plan = CpuPlan::for_cpus(4);
        assert_eq!(plan.instances(Some(1), None), (1, 4));
        assert_eq!(plan.instances(None, Some(4)), (1, 4));
        assert_eq!(plan.instances(Some(3), Some(5)), (3, 5));
    }

    #[test]
    fn threads_never_exceed_the_cores_by_themselves() {
        for cpus in 1..200 {
            let (instances, threads) = CpuPlan::for_cpus(cpus).instances(None, None);
            assert!(instances * threads <= cpus);
        }
    }

    #[test]
    fn this_machine_has_a_core() {
        assert!(available_cpus() >= 1);
    }
}
