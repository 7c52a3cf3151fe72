//! Merkle trees over the leaves of a stream, as RFC 6962 defines them. The leaf prefix is part of
//! [`caudal_store::leaf`]; nodes are `SHA-256(1 ‖ left ‖ right)`.

use caudal_store::Digest;
use sha2::{Digest as _, Sha256};

/// A tree that grows leaf by leaf and keeps one hash per level: the roots of the whole subtrees it is made of, the
/// largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    peaks: Vec<Digest>,
}

impl Tree {
    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its whole subtrees, the largest first: one for each bit that is set in its size.
    pub fn peaks(&self) -> &[Digest] {
        &self.peaks
    }

    /// The tree of `size` leaves with these peaks; `None` if so many leaves have another number of them.
    pub fn from_peaks(size: u64, peaks: Vec<Digest>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Digest) {
        let mut hash = leaf;
        // As with carries of an addition: two subtrees of a size become one of the next.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root; SHA-256 of nothing while there are no leaves.
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => Sha256::digest(b"").into(),
            Some(last) => peaks.fold(*last, |right, left| node(left, &right)),
        }
    }
}

/// Finds the path from one leaf to the root while leaves go by, without keeping them.
#[derive(Debug, Clone)]
pub struct PathFinder {
    index: u64,
    size: u64,
    /// Roots of whole subtrees, and whether the leaf is within.
    peaks: Vec<(Digest, bool)>,
    path: Vec<Digest>,
}

impl PathFinder {
    /// For the leaf `index`, from 0.
    pub fn new(index: u64) -> Self {
        Self { index, size: 0, peaks: Vec::new(), path: Vec::new() }
    }

    /// The next leaf goes by.
    pub fn push(&mut self, leaf: Digest) {
        let mut peak = (leaf, self.size == self.index);
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                peak = self.join(left, peak);
            }
        }
        self.peaks.push(peak);
        self.size += 1;
    }

    /// The path, if the leaf went by.
    pub fn finish(mut self) -> Option<Vec<Digest>> {
        let mut right = self.peaks.pop()?;
        while let Some(left) = self.peaks.pop() {
            right = self.join(left, right);
        }
        right.1.then_some(self.path)
    }

    fn join(&mut self, left: (Digest, bool), right: (Digest, bool)) -> (Digest, bool) {
        if left.1 {
            self.path.push(right.0);
        } else if right.1 {
            self.path.push(left.0);
        }
        (node(&left.0, &right.0), left.1 || right.1)
    }
}

/// The hash of a node.
pub fn node(left: &Digest, right: &Digest) -> Digest {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

/// The root that `leaf` at `index` of `size` leaves leads to along `path`; `None` if the path cannot be one of these.
/// RFC 9162, 2.1.3.2.
pub fn root_by_path(leaf: Digest, index: u64, size: u64, path: &[Digest]) -> Option<Digest> {
    let (mut at, mut last) = (index, size.checked_sub(1)?);
    if at > last {
        return None;
    }
    let mut hash = leaf;
    for side in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(side, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node(&hash, side);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(hash)
}

/// The proof that the first `before` of `leaves` were the whole tree once. RFC 6962, 2.1.2.
pub fn consistency(leaves: &[Digest], before: usize) -> Vec<Digest> {
    let mut proof = Vec::new();
    if 0 < before && before < leaves.len() {
        subproof(leaves, before, true, &mut proof);
    }
    proof
}

fn subproof(leaves: &[Digest], before: usize, whole: bool, proof: &mut Vec<Digest>) {
    if before == leaves.len() {
        if !whole {
            proof.push(root(leaves));
        }
        return;
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    if before <= left.len() {
        subproof(left, before, whole, proof);
        proof.push(root(right));
    } else {
        subproof(right, before - left.len(), false, proof);
        proof.push(root(left));
    }
}

/// The root over `leaves`.
pub fn root(leaves: &[Digest]) -> Digest {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree.root()
}

/// Whether `proof` shows that the tree of `before` leaves with root `old` grew into the one of `after` leaves with root
/// `new`. RFC 9162, 2.1.4.2.
pub fn is_consistent(before: u64, old: &Digest, after: u64, new: &Digest, proof: &[Digest]) -> bool {
    if before == after {
        return proof.is_empty() && old == new;
    }
    if before == 0 || before > after {
        return before == 0 && proof.is_empty();
    }
    let (mut at, mut last) = (before - 1, after - 1);
    let shift = at.trailing_ones();
    (at, last) = (at >> shift, last >> shift);
    let mut path = proof.iter();
    // A tree of a power of two is a subtree of the new one: its root is the start.
    let Some(start) = (if before.is_power_of_two() { Some(old) } else { path.next() }) else { return false };
    let (mut was, mut is) = (*start, *start);
    for side in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            was = node(side, &was);
            is = node(side, &is);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            is = node(&is, side);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && was == *old && is == *new
}
