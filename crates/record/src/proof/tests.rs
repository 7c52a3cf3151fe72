//! Trees against vectors of the RFC's definitions; heads and receipts against whoever changes them, and against a Python
//! that checks by hand.

use caudal_store::{Digest, Record, origin};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::merkle::{PathFinder, consistency, is_consistent, root, root_by_path};
use super::*;
use crate::canonical::sha256;
use crate::canonical::tests::python;
use crate::hash::Hash;
use crate::verify::Verifier;
use crate::verify::tests::{records, stream};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../fixtures/merkle/vectors.json")).unwrap()
}

fn leaves(count: usize) -> Vec<Digest> {
    (0..count).map(|n| sha256(&[0, n as u8])).collect()
}

fn hashes(words: &Value) -> Vec<Digest> {
    words.as_str().unwrap().split_whitespace().map(|word| word.parse::<Hash>().unwrap().0).collect()
}

fn path(leaves: &[Digest], index: usize) -> Vec<Digest> {
    let mut finder = PathFinder::new(index as u64);
    leaves.iter().for_each(|leaf| finder.push(*leaf));
    finder.finish().unwrap()
}

#[test]
fn the_tree_of_certificate_transparency() {
    let vectors = &vectors()["transparency"];
    let leaf = |input: &Value| {
        let input = input.as_str().unwrap();
        let bytes = (0..input.len() / 2).map(|n| u8::from_str_radix(&input[2 * n..2 * n + 2], 16).unwrap());
        sha256(&std::iter::once(0).chain(bytes).collect::<Vec<_>>())
    };
    let leaves: Vec<_> = vectors["inputs"].as_array().unwrap().iter().map(leaf).collect();
    assert_eq!(vec![root(&leaves)], hashes(&vectors["root"]));
}

#[test]
fn roots_paths_and_consistency_are_the_rfcs() {
    let vectors = vectors();
    for size in 0..=17 {
        let leaves = leaves(size);
        assert_eq!(vec![root(&leaves)], hashes(&vectors["roots"][size]), "{size}");
        for index in 0..size {
            assert_eq!(path(&leaves, index), hashes(&vectors["paths"][size - 1][index]), "{index} of {size}");
        }
        for before in 1..size {
            let expected = hashes(&vectors["consistency"][size - 1][before - 1]);
            assert_eq!(consistency(&leaves, before), expected, "{before} of {size}");
        }
    }
}

#[test]
fn a_tree_that_was_kept_goes_on() {
    let leaves = leaves(13);
    let mut tree = Tree::default();
    leaves[..6].iter().for_each(|leaf| tree.push(*leaf));
    let mut kept = Tree::from_peaks(tree.size(), tree.peaks().to_vec()).unwrap();
    leaves[6..].iter().for_each(|leaf| kept.push(*leaf));
    assert_eq!((kept.size(), kept.root()), (13, root(&leaves)));
    assert_eq!(Tree::from_peaks(6, vec![[0; 32]]), None);
}

proptest! {
    #[test]
    fn proofs_hold_for_what_they_are_about_and_nothing_else(size in 1usize..200, index: usize, before: usize, bit in 0usize..256) {
        let leaves: Vec<_> = (0..size).map(|n| sha256(&n.to_be_bytes())).collect();
        let (index, whole) = (index % size, root(&leaves));
        let way = path(&leaves, index);
        let by = |leaf, index: usize, path: &[Digest]| root_by_path(leaf, index as u64, size as u64, path);
        prop_assert_eq!(by(leaves[index], index, &way), Some(whole));
        prop_assert_ne!(by(sha256(b"other"), index, &way), Some(whole));
        for other in 0..size {
            prop_assert!(other == index || by(leaves[index], other, &way) != Some(whole));
        }
        prop_assert_ne!(by(leaves[index], index, &[way.clone(), vec![whole]].concat()), Some(whole));
        if let Some((last, shorter)) = way.split_last() {
            prop_assert_ne!(by(leaves[index], index, shorter), Some(whole));
            let mut changed = *last;
            changed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(by(leaves[index], index, &[shorter, &[changed]].concat()), Some(whole));
        }

        let before = before % size + 1;
        let (old, proof) = (root(&leaves[..before]), consistency(&leaves, before));
        let holds = |old: &Digest, proof: &[Digest]| is_consistent(before as u64, old, size as u64, &whole, proof);
        prop_assert!(holds(&old, &proof));
        prop_assert!(!holds(&sha256(b"other"), &proof));
        if let Some((last, shorter)) = proof.split_last() {
            prop_assert!(!holds(&old, shorter));
            let mut changed = *last;
            changed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!holds(&old, &[shorter, &[changed]].concat()));
        }
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn some_records() -> Vec<Record> {
    let message = |n: i32| {
        (
            "MESSAGE_RECEIVED",
            json!({ "message": format!("¿Cómo está?\n\"{n}\""), "n": f64::from(n) / 8.0, "big": 1e22 }),
        )
    };
    records(&(0..11).map(message).collect::<Vec<_>>())
}

/// The receipt of the record at `index`.
fn receipt(records: &[Record], index: usize) -> Receipt {
    let mut verifier = Verifier::new(stream(), 0, b"");
    records.iter().for_each(|record| verifier.check(record).unwrap());
    let head = SignedHead::new(&stream(), &verifier.head(), verifier.root()).sign(&key());
    let before = index.checked_sub(1).map_or(origin(&stream(), 0, b""), |before| records[before].chain);
    let leaves: Vec<_> = records.iter().map(Record::leaf).collect();
    Receipt::new(&records[index], before, path(&leaves, index), head).unwrap()
}

#[test]
fn receipts_hold_after_a_journey() {
    let records = some_records();
    for index in 0..records.len() {
        let receipt = receipt(&records, index);
        assert_eq!(receipt.verify(Some(&key().verifying_key())), Ok(()));
        // Whatever white space somebody puts in.
        let travelled = serde_json::to_string_pretty(&serde_json::to_value(&receipt).unwrap()).unwrap();
        let travelled: Receipt = serde_json::from_str(&travelled).unwrap();
        assert_eq!(travelled.verify(Some(&key().verifying_key())), Ok(()));
    }
}

#[test]
fn whatever_is_changed_in_a_receipt_shows() {
    let good = serde_json::to_value(receipt(&some_records(), 4)).unwrap();
    let other = "00".repeat(32);
    let check = |pointer: &str, value: Value, expected: ReceiptFault| {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let changed: Receipt = serde_json::from_str(&changed.to_string()).unwrap();
        assert_eq!(changed.verify(Some(&key().verifying_key())), Err(expected), "{pointer}");
    };
    check("/event/payload/n", json!(0.75), ReceiptFault::Digest);
    check("/event/audit_hash", json!(other), ReceiptFault::Digest);
    for field in ["sequence", "time"] {
        check(&format!("/event/{field}"), json!(7), ReceiptFault::Leaf);
    }
    check("/event/event_id", json!("00000000-0000-0000-0000-000000000000"), ReceiptFault::Leaf);
    check("/event/event_type", json!("MESSAGE_UPDATED"), ReceiptFault::Leaf);
    check("/event/metadata", json!("{}"), ReceiptFault::Leaf);
    check("/tree/leaf", json!(other), ReceiptFault::Leaf);
    check("/chain/before", json!(other), ReceiptFault::Link);
    check("/chain/link", json!(other), ReceiptFault::Link);
    check("/tree/path/0", json!(other), ReceiptFault::Path);
    check("/tree/path", json!([]), ReceiptFault::Path);
    check("/tree/index", json!(5), ReceiptFault::Path);
    check("/tree/root", json!(other), ReceiptFault::Path);
    check("/head/root", json!(other), ReceiptFault::Apart("the tree is not the head's"));
    check("/head/sequence", json!(12), ReceiptFault::Apart("the tree is not the head's"));
    check("/head/chain_hash", json!(other), ReceiptFault::Head(HeadFault::Forged));
    check("/head/time", json!(1), ReceiptFault::Head(HeadFault::Forged));
    check("/head/consultation", json!("c-2"), ReceiptFault::Head(HeadFault::Forged));
    check("/head/signature", json!("00".repeat(64)), ReceiptFault::Head(HeadFault::Forged));
    check("/head/signature", Value::Null, ReceiptFault::Head(HeadFault::Unsigned));
    check("/head/key_id", json!("00".repeat(8)), ReceiptFault::Head(HeadFault::OtherKey));
}

#[test]
fn without_a_key_a_receipt_is_of_one_piece_or_not() {
    let mut last = receipt(&some_records(), 10);
    last.head.signature = None;
    assert_eq!(last.verify(None), Ok(()));
    assert_eq!(last.verify(Some(&key().verifying_key())), Err(HeadFault::Unsigned.into()));
    last.head.chain_hash = [0; 32].into();
    assert_eq!(last.verify(None), Err(ReceiptFault::Apart("the event is the last, and the head says otherwise")));
}

/// The first block of Python in docs/record.md, run with a receipt.
#[test]
fn the_python_in_the_documents_checks_a_receipt() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/record.md")).unwrap();
    let script = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let records = some_records();
    for index in [0, 4, 7, 10] {
        let mut receipt = serde_json::to_value(receipt(&records, index)).unwrap();
        let Some(said) = python(script, &receipt.to_string()) else { return };
        assert_eq!(said.trim(), "good", "{index}");
        receipt["event"]["payload"]["message"] = "other".into();
        assert_eq!(python(script, &receipt.to_string()).unwrap().trim(), "bad", "{index}");
    }
}
