//! What the kernel says of the threads of this process, and of the cores that it may use.

use std::{collections::BTreeMap, fs};

use caudal_sight::{ThreadRole, ThreadTimes};

/// What threads did so far, by number.
pub(super) struct Threads(BTreeMap<u32, (ThreadRole, f64, f64)>);

impl Threads {
    pub(super) fn now() -> Self {
        let own = std::process::id();
        let main = name(own, own);
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let one = |id: u32| {
            let stat = fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).ok()?;
            let mut nanos = stat.split_whitespace().map(|number| number.parse::<f64>().unwrap_or(0.0) / 1e9);
            let role = role(&name(own, id), id != own, &main);
            Some((id, (role, nanos.next()?, nanos.next()?)))
        };
        Self(tasks.filter_map(|task| one(task.file_name().to_str()?.parse().ok()?)).collect())
    }

    /// What they did since `before`.
    pub(super) fn since(&self, before: &Self) -> BTreeMap<ThreadRole, ThreadTimes> {
        let mut spent = BTreeMap::<ThreadRole, ThreadTimes>::new();
        for (id, (role, cpu, ready)) in &self.0 {
            let (_, cpu_before, ready_before) = before.0.get(id).copied().unwrap_or((*role, 0.0, 0.0));
            let of = spent.entry(*role).or_default();
            of.threads += 1;
            of.cpu += (cpu - cpu_before).max(0.0);
            of.ready += (ready - ready_before).max(0.0);
        }
        spent
    }
}

fn name(process: u32, thread: u32) -> String {
    fs::read_to_string(format!("/proc/{process}/task/{thread}/comm")).unwrap_or_default().trim().to_owned()
}

/// What a thread is for, by its name. Threads of ONNX Runtime bear that of whoever opened the model.
fn role(name: &str, born_later: bool, main: &str) -> ThreadRole {
    match name.split('-').next().unwrap_or_default() {
        "io" => ThreadRole::Io,
        "decode" => ThreadRole::Decode,
        "infer" | "onnxruntime" => ThreadRole::Infer,
        _ if born_later && name == main => ThreadRole::Infer,
        _ => ThreadRole::Other,
    }
}

/// Time of the cores that this process may use, all together: in use, and in all, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cores {
    used: f64,
    all: f64,
}

impl Cores {
    pub(super) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        Self::of(&fs::read_to_string("/proc/stat").unwrap_or_default(), &list(allowed))
    }

    fn of(stat: &str, allowed: &[usize]) -> Self {
        let mut cores = Self { used: 0.0, all: 0.0 };
        for line in stat.lines() {
            let mut fields = line.split_whitespace();
            let number = fields.next().and_then(|name| name.strip_prefix("cpu")?.parse::<usize>().ok());
            if !number.is_some_and(|number| allowed.contains(&number)) {
                continue;
            }
            // user nice system idle iowait irq softirq steal; what guests take is in user already.
            let ticks: Vec<f64> = fields.take(8).map(|field| field.parse().unwrap_or(0.0)).collect();
            let all: f64 = ticks.iter().sum();
            let idle: f64 = ticks.iter().skip(3).take(2).sum();
            cores.used += all - idle;
            cores.all += all;
        }
        cores
    }

    /// How busy they were since `before`, from 0 to 1.
    pub(super) fn since(self, before: Self) -> f64 {
        let all = self.all - before.all;
        if all > 0.0 { ((self.used - before.used) / all).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Numbers as the kernel lists them: `0-3,8`.
fn list(text: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) {
            numbers.extend(from..=to.min(from + 4096));
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_known_by_their_names() {
        let of = |name: &str| role(name, true, "caudal");
        assert_eq!(
            (of("io-0"), of("decode-3"), of("infer-0-yolo")),
            (ThreadRole::Io, ThreadRole::Decode, ThreadRole::Infer)
        );
        assert_eq!(
            (of("caudal"), role("caudal", false, "caudal"), of("memory")),
            (ThreadRole::Infer, ThreadRole::Other, ThreadRole::Other)
        );
    }

    #[test]
    fn the_cores_that_may_be_used_are_added_up() {
        let stat =
            |a: u32, idle: u32| format!("cpu  9 9 9 9\ncpu0 {a} 0 0 {idle} 0 0 0 0 0 0\ncpu1 999 0 0 0 0 0 0 0\n");
        let (before, after) = (Cores::of(&stat(100, 100), &[0]), Cores::of(&stat(130, 110), &[0]));
        assert!((after.since(before) - 0.75).abs() < 1e-9);
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
    }

    #[test]
    fn a_thread_that_works_is_seen() {
        let before = Threads::now();
        std::thread::Builder::new()
            .name("decode-9".to_owned())
            .spawn(move || {
                let until = std::time::Instant::now() + std::time::Duration::from_millis(30);
                while std::time::Instant::now() < until {}
                let spent = Threads::now().since(&before)[&ThreadRole::Decode];
                assert!(spent.threads >= 1 && spent.cpu > 0.005, "{spent:?}");
            })
            .unwrap()
            .join()
            .unwrap();
    }
}
