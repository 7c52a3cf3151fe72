//! Which process runs a run.

use std::{fs, process};

use serde::{Deserialize, Serialize};

/// A process, told apart from all others that there are or were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The machine's or container's name.
    host: Box<str>,
    /// The kernel's name for this start of the machine.
    boot: Box<str>,
    pid: u32,
    /// When the process began, in the kernel's ticks since its start.
    began: u64,
}

impl Owner {
    /// This process.
    pub fn this() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default().trim().into();
        let pid = process::id();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            pid,
            began: began(pid).unwrap_or_default(),
        }
    }

    /// Whether the process may still be there: on another machine nobody can tell.
    pub fn may_live(&self) -> bool {
        let here = Self::this();
        if self.host != here.host {
            return true;
        }
        self.boot == here.boot && began(self.pid) == Some(self.began)
    }

    /// Whether it is this process.
    pub fn is_this(&self) -> bool {
        *self == Self::this()
    }
}

/// When a process began: the 22nd field of its `stat`, of which the second may hold blanks and parentheses.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ends() {
        assert!(Owner::this().may_live() && Owner::this().is_this());
        let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
        let owner = Owner { pid: child.id(), began: began(child.id()).unwrap(), ..Owner::this() };
        assert!(owner.may_live() && !owner.is_this());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!owner.may_live());
        assert!(!Owner { began: 1, ..Owner::this() }.may_live(), "another process may have its number by now");
        assert!(Owner { host: "elsewhere".into(), ..owner }.may_live(), "nobody can tell from here");
    }
}
