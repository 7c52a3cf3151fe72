//! Reading and writing of the pprof format.

use std::{
    collections::HashMap,
    io::{Read, Write},
    time::SystemTime,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use protobuf::{Message, MessageField};

use crate::{
    error::ProfileError,
    profile::{IDLE_MESSAGE, Kind, Profile, Stack},
};
use wire::profile as proto;

#[allow(unreachable_pub, reason = "made from proto/profile.proto")]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/pprof/mod.rs"));
}

/// Bytes of an unpacked profile; larger ones were not written by this crate.
const MAX_PROFILE_BYTES: u64 = 256 << 20;

/// The string table, with each string once.
#[derive(Default)]
struct StringTable {
    indices: HashMap<String, i64>,
    table: Vec<String>,
}

impl StringTable {
    fn intern(&mut self, text: &str) -> i64 {
        if let Some(index) = self.indices.get(text) {
            return *index;
        }
        let index = self.table.len() as i64;
        self.table.push(text.to_owned());
        self.indices.insert(text.to_owned(), index);
        index
    }
}

pub(crate) fn write(profile: &Profile) -> Result<Vec<u8>, ProfileError> {
    let message = to_message(profile);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&message.write_to_bytes().map_err(std::io::Error::other)?)?;
    Ok(gzip.finish()?)
}

fn to_message(profile: &Profile) -> proto::Profile {
    let mut strings = StringTable::default();
    strings.intern("");
    let mut message = proto::Profile::new();
    let (count, amount) = match profile.kind {
        Kind::Cpu => (("samples", "count"), ("cpu", "nanoseconds")),
        Kind::Heap => (("inuse_objects", "count"), ("inuse_space", "bytes")),
    };
    let mut value = |(kind, unit): (&str, &str)| proto::ValueType {
        type_: strings.intern(kind),
        unit: strings.intern(unit),
        ..Default::default()
    };
    message.sample_type = vec![value(count), value(amount)];
    let period = match profile.kind {
        Kind::Cpu => amount,
        Kind::Heap => ("space", "bytes"),
    };
    message.period_type = MessageField::some(value(period));
    message.period = profile.period as i64;
    message.time_nanos =
        profile.began.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    message.duration_nanos = profile.took.as_nanos() as i64;
    let mut functions: HashMap<&str, u64> = HashMap::new();
    for stack in &profile.stacks {
        let mut sample = proto::Sample::new();
        sample.value = vec![stack.count as i64, stack.amount as i64];
        for name in stack.frames.iter().rev() {
            let next = functions.len() as u64 + 1;
            let id = *functions.entry(name).or_insert(next);
            if id == next {
                let index = strings.intern(name);
                // pprof demangles a name unless the system name differs; it is 0, the empty string.
                message.function.push(proto::Function { id, name: index, system_name: 0, ..Default::default() });
                let line = proto::Line { function_id: id, ..Default::default() };
                message.location.push(proto::Location { id, line: vec![line], ..Default::default() });
            }
            sample.location_id.push(id);
        }
        message.sample.push(sample);
    }
    if profile.is_idle() {
        message.comment = vec![strings.intern(IDLE_MESSAGE)];
    }
    message.string_table = strings.table;
    message
}

/// Parses a profile that [`write`] or another tool wrote, with CPU time or bytes.
pub(crate) fn read(bytes: &[u8]) -> Result<Profile, ProfileError> {
    let wrong = |what: &str| ProfileError::Unreadable(what.to_owned());
    let mut plain = Vec::new();
    GzDecoder::new(bytes)
        .take(MAX_PROFILE_BYTES + 1)
        .read_to_end(&mut plain)
        .map_err(|_| wrong("not gzip, or truncated"))?;
    if plain.len() as u64 > MAX_PROFILE_BYTES {
        return Err(wrong("more than 256 MiB"));
    }
    let message = proto::Profile::parse_from_bytes(&plain).map_err(|_| wrong("not pprof's protobuf"))?;
    let text = |index: i64| usize::try_from(index).ok().and_then(|index| message.string_table.get(index));
    let function: HashMap<u64, &String> =
        message.function.iter().filter_map(|function| Some((function.id, text(function.name)?))).collect();
    let location: HashMap<u64, &[proto::Line]> =
        message.location.iter().map(|location| (location.id, location.line.as_slice())).collect();
    let unit = message.sample_type.last().and_then(|kind| text(kind.unit)).map(String::as_str);
    let kind = match unit {
        Some("nanoseconds") => Kind::Cpu,
        Some("bytes") => Kind::Heap,
        _ => return Err(wrong("neither CPU time nor bytes")),
    };
    let stack = |sample: &proto::Sample| -> Option<Stack> {
        let mut frames = Vec::new();
        for id in &sample.location_id {
            for line in *location.get(id)? {
                frames.push((*function.get(&line.function_id)?).clone());
            }
        }
        frames.reverse();
        let value = |at: usize| sample.value.get(at).map_or(0, |value| (*value).max(0) as u64);
        Some(Stack { frames, count: value(0), amount: value(message.sample_type.len() - 1) })
    };
    let stacks: Option<Vec<Stack>> = message.sample.iter().map(stack).collect();
    let period = message.period.max(1) as u64;
    Ok(Profile { period, ..Profile::new(kind, stacks.ok_or_else(|| wrong("a sample refers to a missing location"))?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function_names(message: &proto::Profile, function: &proto::Function) -> (String, String) {
        let text = |index: i64| message.string_table[index as usize].clone();
        (text(function.name), text(function.system_name))
    }

    #[test]
    fn written_names_are_not_demangled_by_pprof() {
        // pprof demangles functions whose name and system name are equal.
        let frames = vec!["infer-0".to_owned(), "caudal::OnnxInstance::run".to_owned()];
        let message = to_message(&Profile::new(Kind::Cpu, vec![Stack { frames, count: 1, amount: 10 }]));
        for function in &message.function {
            let (name, system) = function_names(&message, function);
            assert!(name != system && !name.contains('<'), "{name:?} {system:?}");
        }
        assert_eq!(message.comment, [0i64; 0]);
    }

    #[test]
    fn idle_profile_survives_a_round_trip() {
        let idle = Profile::new(Kind::Cpu, Vec::new());
        let message = to_message(&idle);
        assert_eq!(message.string_table[message.comment[0] as usize], IDLE_MESSAGE);
        assert_eq!(read(&write(&idle).unwrap()).unwrap().stacks, []);
    }
}
